package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	sd "github.com/coreos/go-systemd/v22/daemon"

	"relayd/acme"
	"relayd/bans"
	"relayd/certs"
	"relayd/config"
	"relayd/control"
	"relayd/delivery"
	"relayd/digest"
	"relayd/dns"
	"relayd/domains"
	"relayd/filter"
	"relayd/follow"
	"relayd/mailauth"
	"relayd/message"
	"relayd/metrics"
	"relayd/problem"
	"relayd/queue"
	"relayd/relay"
	"relayd/rights"
	"relayd/sendmail"
	"relayd/smtpd"
	"relayd/srs"
	"relayd/users"
)

// A daemon is everything that runs, wired together.
type daemon struct {
	conf      *config.Config
	settings  *config.Watcher
	rights    *rights.Watcher
	log       *slog.Logger
	started   time.Time
	domains   *domains.Store
	certs     *certs.Store
	store     *queue.LogStore
	queue     *queue.Queue
	outbound  *outbound
	inbound   *relay.Inbound
	digests   *digest.Book
	filter    *filter.Filter
	follow    follow.Book
	bans      *bans.Book
	metrics   *metrics.Metrics
	listeners []listener
	servers   []*smtpd.Server
	web       *http.Server // of metrics
	public    *http.Server // for the world
	answers   *acme.Answers
	acme      *acme.Keeper // nil if no certificates are ordered
	control   *control.Server
	door      *sendmail.Door // for mail of local users; nil where none is taken

	ctx     context.Context // ends when the daemon is to stop
	stop    context.CancelCauseFunc
	serving sync.WaitGroup // servers and background work
	done    chan struct{}  // closed when all is down
}

// Times of an orderly end.
const (
	sessionGrace = 30 * time.Second // for open transactions
	certsEvery   = time.Second
)

// start brings a daemon up; it goes down when ctx ends. After an error nothing is left running.
func start(ctx context.Context, conf *config.Config, log *slog.Logger) (*daemon, error) {
	d := &daemon{conf: conf, log: log, started: time.Now(), done: make(chan struct{})}
	d.settings = config.NewWatcher(conf, log)
	d.ctx, d.stop = context.WithCancelCause(ctx)
	if err := os.MkdirAll(conf.StateDir, 0o750); err != nil {
		return nil, fmt.Errorf("the state folder cannot be made (see state_dir): %w", err)
	}
	controlSocket, err := control.Listen(conf.ControlSocket())
	if err != nil {
		return nil, err
	}
	if d.listeners, err = listenAll(conf.Listen); err != nil {
		controlSocket.Close()
		return nil, err
	}
	if err := d.build(); err != nil {
		controlSocket.Close()
		closeAll(d.listeners)
		return nil, err
	}
	if d.door, err = d.openDoor(); err != nil {
		controlSocket.Close()
		closeAll(d.listeners)
		return nil, errors.Join(err, d.store.Close())
	}
	behindProxies(d.listeners, conf.Listen.ProxyFrom, log)
	d.control = control.NewServer(d, d.queue, log)
	d.rights = rights.NewWatcher(conf, log)
	d.run(controlSocket)
	return d, nil
}

// build makes the rooms and connects them.
func (d *daemon) build() error {
	conf, log := d.conf, d.log
	d.domains = domains.Open(domains.Options{
		Dir: conf.DomainsDir(), GoodDir: conf.GoodDir(), AllowPipe: conf.Aliases.AllowPipe, Mailboxes: conf.Mailbox.LMTP != "", Log: log,
	})
	d.certs, _ = newCerts(conf, log)
	d.answers = &acme.Answers{Webroot: conf.ACME.Webroot}
	d.public = d.newWeb()
	var err error
	if d.acme, err = d.newACME(); err != nil {
		return err
	}
	rewriter, err := newRewriter(conf)
	if err != nil {
		return err
	}
	checking := newCheckingResolver(conf)
	d.filter = filter.New(filter.Options{
		DNSBL: conf.Filter.DNSBL, Rspamd: conf.Filter.Rspamd.URL, Password: conf.Filter.Rspamd.Password, Milters: conf.Filter.Milter,
		Hostname: conf.Hostname, Resolver: checking, Now: time.Now, Log: log,
	})
	d.bans = newBans(conf, log)
	opt := relay.Options{
		Bans: d.bans, Config: conf, Domains: d.domains.Current, SRS: rewriter, Now: time.Now, Log: log,
		Verifier: users.NewVerifier(users.VerifierOptions{Cost: conf.Auth.BcryptCost, Upgrade: d.domains.Rehash}), Filter: d.filter,
		Checker:  mailauth.New(mailauth.Options{Resolver: checking, Hostname: conf.Hostname, Now: time.Now}),
		Accepted: func(took time.Duration) { d.metrics.Accepted(took) },
		Follow:   &d.follow,
	}
	if d.outbound, err = d.newOutbound(); err != nil {
		return err
	}
	outbound := relay.NewOutbound(opt, d.outbound.client)
	d.outbound.relay = outbound
	store, err := queue.OpenStore(queue.StoreOptions{
		Dir: conf.QueueDir(), Group: outbound.Group, Log: log, ReserveBytes: 64 << 20, ReserveFiles: 100,
		MaxMessages: int64(conf.Queue.MaxMessages), MaxBytes: int64(conf.Queue.MaxSize),
	})
	if err != nil {
		return fmt.Errorf("opening the queue: %w", err)
	}
	d.store = store
	d.digests = newDigests(conf, log)
	d.queue = queue.New(queue.Options{
		Hostname: conf.Hostname, Lifetime: time.Duration(conf.Queue.Lifetime), DelayWarning: time.Duration(conf.Queue.DelayWarning),
		Workers: 1000, PerGroup: 20, Grace: 10 * time.Second, Sign: opt.Sign, Log: log,
		Failed: opt.NoteFailures(d.digests), Settled: opt.Settled,
	}, store, outbound)
	d.outbound.restore(d)
	d.inbound = relay.NewInbound(opt, d.queue)
	d.servers = newServers(conf, log, d.certs, store.TemporaryDir(), d.inbound)
	d.metrics, d.web = d.newMetrics()
	return nil
}

// newCheckingResolver gives the checks of strangers' mail a resolver of their own, so that nobody can
// push out of its cache what deliveries go by.
func newCheckingResolver(conf *config.Config) *dns.Resolver {
	return dns.New(dns.Options{Servers: conf.DNS.Servers, Trust: trust(conf.DNS.Trusted)})
}

func newRewriter(conf *config.Config) (*srs.Rewriter, error) {
	secrets, err := srs.LoadSecrets(filepath.Join(conf.StateDir, "srs-secrets"))
	if err != nil {
		return nil, fmt.Errorf("reading the SRS secrets: %w", err)
	}
	tokens, err := srs.OpenTokens(filepath.Join(conf.StateDir, "srs-tokens"))
	if err != nil {
		return nil, fmt.Errorf("opening the SRS tokens: %w", err)
	}
	return srs.New(srs.Options{Secrets: secrets, Tokens: tokens})
}

func newDigests(conf *config.Config, log *slog.Logger) *digest.Book {
	file := filepath.Join(conf.StateDir, "digests")
	return digest.Open(digest.Options{
		Hostname: conf.Hostname, Now: time.Now, Log: log,
		Load: func() ([]byte, error) { return readState(file) },
		Save: func(data []byte) error { return writeState(file, data) },
	})
}

// newServers makes one server for each kind of port.
func newServers(conf *config.Config, log *slog.Logger, store *certs.Store, spool string, r smtpd.Relay) []*smtpd.Server {
	limits := smtpd.DefaultLimits()
	limits.MessageSize, limits.Recipients = int64(conf.Limits.MessageSize), conf.Limits.Recipients
	base := smtpd.Options{
		Hostname: conf.Hostname, TLS: store.TLSConfig(), Memory: message.NewMemory(32 << 20), SpoolDir: spool, Limits: limits, Log: log,
		Gatekeep: smtpd.NewGatekeeper(conf.Limits.Connections, conf.Limits.ConnectionsPerIP),
		CanLogin: func(name string) bool { return conf.TLS.AllowSelfSigned || store.Real(name) },
	}
	servers := make([]*smtpd.Server, len(services))
	for i, s := range services {
		opt := base
		opt.Submission, opt.ImplicitTLS = s.submission, s.implicitTLS
		servers[i] = smtpd.New(opt, r)
	}
	return servers
}

// run starts everything that goes on until the end.
func (d *daemon) run(controlSocket net.Listener) {
	d.serving.Go(func() { d.settings.Run(d.ctx) })
	d.serving.Go(func() { d.rights.Run(d.ctx) })
	d.serving.Go(func() { d.domains.Watch(d.ctx) })
	d.serving.Go(func() { d.certs.Watch(d.ctx, certsEvery) })
	d.serving.Go(func() { d.queue.Run(d.ctx) })
	if d.acme != nil {
		d.serving.Go(func() { d.acme.Run(d.ctx) })
	}
	d.outbound.run(d)
	d.serving.Go(func() { d.bans.Run(d.ctx) })
	d.serving.Go(func() { d.digests.Run(d.ctx, d.inbound.SendDigest) })
	d.serving.Go(func() { d.failed("control socket", d.control.Serve(controlSocket)) })
	if d.door != nil {
		d.serving.Go(func() { d.failed("mail of local users", d.door.Run(d.ctx)) })
	}
	for _, l := range d.listeners {
		d.serving.Go(func() { d.failed(l.service.name, d.serve(l)) })
		d.log.Info("listening", "service", l.service.name, "address", l.Addr().String())
	}
	go d.reloadOnHangup()
	go d.end()
	go d.watchdog()
	d.tell(sd.SdNotifyReady, "STATUS="+d.summary())
	d.log.Info("relayd is up", "version", version(), "hostname", d.conf.Hostname, "domains", len(d.domains.Current().All()))
}

// failed takes the daemon down when a part that should go on for ever has ended.
func (d *daemon) failed(part string, err error) {
	if err != nil && d.ctx.Err() == nil {
		d.stop(fmt.Errorf("%s: %w", part, err))
	}
}

func (d *daemon) reloadOnHangup() {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	for {
		select {
		case <-d.ctx.Done():
			return
		case <-hangup:
			d.tell(sd.SdNotifyReloading, sd.SdNotifyMonotonicUsec())
			d.Reload()
			d.tell(sd.SdNotifyReady, "STATUS="+d.summary())
		}
	}
}

// end takes everything down in order when ctx has ended: sessions first, then deliveries.
func (d *daemon) end() {
	defer close(d.done)
	<-d.ctx.Done()
	d.tell(sd.SdNotifyStopping, "STATUS=Shutting down: messages that are being sent may end within "+sessionGrace.String())
	d.log.Info("shutting down")
	ctx, cancel := context.WithTimeout(context.Background(), sessionGrace)
	defer cancel()
	var sessions sync.WaitGroup
	for _, s := range d.servers {
		sessions.Go(func() { s.Shutdown(ctx) })
	}
	sessions.Wait()
	d.control.Close()
	d.web.Close()
	d.public.Close()
	d.serving.Wait()
	d.outbound.close(d)
	d.digests.Close()
	d.bans.Close()
	if err := d.store.Close(); err != nil {
		d.log.Error("closing the queue", "error", err.Error())
	}
	d.log.Info("relayd is down")
}

// Wait returns when the daemon is down: nil if it was asked to stop.
func (d *daemon) Wait() error {
	<-d.done
	if err := context.Cause(d.ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// Address is where a service listens, as the system chose it; "" if it does not.
func (d *daemon) Address(service string) string {
	for _, l := range d.listeners {
		if l.service.name == service {
			return l.Addr().String()
		}
	}
	return ""
}

// Reload reads all edited files now. Settings of relayd.toml are in force from start to end; that
// they have changed, or would not do, is told.
func (d *daemon) Reload() problem.List {
	problems := d.settings.Look()
	d.rights.Look()
	if d.acme != nil {
		d.acme.Retry()
	}
	return append(append(problems, d.domains.Reload()...), d.certs.Reload()...)
}

// checkFiles reads the domains and certificates for -check.
func checkFiles(conf *config.Config) (problems, warnings problem.List) {
	quiet := slog.New(slog.DiscardHandler)
	d := readDomains(conf)
	store, certProblems := newCerts(conf, quiet)
	warnings = append(d.Warnings(), relay.CheckPostmaster(conf, d.Current())...)
	warnings = append(warnings, relay.CheckSRSDomain(conf, d.Current())...)
	warnings = append(warnings, checkLogins(conf, store)...)
	warnings = append(warnings, checkSendmail(conf, d.Current())...)
	for _, w := range delivery.CheckSources(conf.Outbound.SourceIPv4, conf.Outbound.SourceIPv6) {
		warnings = append(warnings, problem.At(conf.File(), 0, "%s", w))
	}
	warnings = append(warnings, rights.Check(conf)...)
	return append(append(d.Problems(), certProblems...), checkACME(conf)...), warnings
}

// readDomains reads the domains without changing anything.
func readDomains(conf *config.Config) *domains.Store {
	return domains.Open(domains.Options{
		Dir: conf.DomainsDir(), GoodDir: conf.GoodDir(), ReadOnly: true, AllowPipe: conf.Aliases.AllowPipe, Mailboxes: conf.Mailbox.LMTP != "",
		Log: slog.New(slog.DiscardHandler),
	})
}

// checkDomains is what can be said of the other files beside settings that are broken. Pipes may be
// allowed there.
func checkDomains(conf *config.Config) problem.List {
	conf.Aliases.AllowPipe = true
	return readDomains(conf).Problems()
}

// checkLogins warns where users cannot log in for lack of a certificate.
func checkLogins(conf *config.Config, store *certs.Store) problem.List {
	if conf.TLS.AllowSelfSigned || store.Real(conf.Hostname) || len(conf.Listen.Submission)+len(conf.Listen.Submissions) == 0 {
		return nil
	}
	if conf.ACME.Enabled {
		return problem.List{problem.At(conf.ACMEDir(), 0, "there is no certificate for %s yet, so nobody can log in: relayd orders one while it runs", conf.Hostname)}
	}
	return problem.List{problem.At(conf.CertsDir(), 0, "there is no certificate for %s, so nobody can log in: put fullchain.pem and privkey.pem into a folder here", conf.Hostname)}
}
