package traffic

import (
	"context"
	"crypto/tls"
	"testing"
	"time"

	"relayd/internal/testnet"
)

// run has a load go straight to a sink, and judges the first n messages or so.
func run(t *testing.T, m Manner, l *Load, n int) (Judgement, *Load) {
	t.Helper()
	s, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ledger := NewLedger(7, n)
	s.Expect(ledger, m)
	l.Addr, l.Hello, l.From, l.Sessions, l.Size = s.listeners[0].Addr().String(), "client.test", "a@client.test", 2, 3000
	if l.To == nil {
		l.To = func(int) []string { return []string{"b@dest.test"} }
	}
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	l.Run(ctx, ledger)
	return ledger.Judge(), l
}

func TestWhatIsAcceptedArrives(t *testing.T) {
	cert := testnet.Cert(t, "dest.test")
	two := func(int) []string { return []string{"b@dest.test", "c@dest.test"} }
	for name, c := range map[string]struct {
		manner Manner
		load   *Load
	}{
		"one message a connection": {Manner{}, &Load{PerConnection: 1}},
		"several":                  {Manner{}, &Load{PerConnection: 7}},
		"two recipients":           {Manner{}, &Load{PerConnection: 7, To: two}},
		"pipelining":               {Manner{}, &Load{PerConnection: 7, To: two, Pipelining: true}},
		"one after the other":      {Manner{}, &Load{PerConnection: 7, Alone: true}},
		"STARTTLS": {Manner{TLS: &tls.Config{Certificates: []tls.Certificate{cert.TLS}}},
			&Load{PerConnection: 7, StartTLS: true, TLS: &tls.Config{RootCAs: cert.Pool, ServerName: "dest.test"}}},
		"slow": {Manner{Slow: 10, Pause: time.Millisecond}, &Load{PerConnection: 7}},
	} {
		t.Run(name, func(t *testing.T) {
			j, l := run(t, c.manner, c.load, 100)
			if j.Accepted != 100 || j.Arrived != 100 || j.Bodies != 100 || j.Lost+j.Duplicate+j.Damaged+j.Strange+j.Refused != 0 || len(j.Latencies) != 100 {
				t.Errorf("%+v; it said %q", j, l.Example())
			}
			if l.Refused()+l.Broken() != 0 {
				t.Errorf("%d refused, %d broken: %s", l.Refused(), l.Broken(), l.Example())
			}
		})
	}
}

func TestARefusedMessageIsNoLoss(t *testing.T) {
	j, l := run(t, Manner{Refusing: 10}, &Load{PerConnection: 7}, 100)
	if j.Accepted != 90 || j.Refused != 10 || j.Lost != 0 || l.Refused() != 10 {
		t.Errorf("%+v; %d refused", j, l.Refused())
	}
}

// TestLossAndDuplicatesAreSeen: what a relay does wrong shows up.
func TestLossAndDuplicatesAreSeen(t *testing.T) {
	l := NewLedger(1, 4)
	for range 4 {
		id, _ := l.begin()
		l.accept(id, 2)
	}
	l.arrive(0, 2, true, true)   // well
	l.arrive(1, 1, false, false) // one recipient is missing
	l.arrive(2, 2, true, false)  // twice
	l.arrive(2, 2, true, false)
	j := l.Judge() // and the last is lost
	if j.Accepted != 4 || j.Arrived != 2 || j.Lost != 3 || j.Duplicate != 2 || j.Damaged != 1 || j.Signed != 1 || j.Bodies != 4 {
		t.Errorf("%+v", j)
	}
	if _, ok := l.begin(); ok {
		t.Error("a full ledger takes more")
	}
}

func TestADamagedBodyIsSeen(t *testing.T) {
	s, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ledger := NewLedger(3, 1)
	s.Expect(ledger, Manner{})
	c, err := (&Load{Addr: s.listeners[0].Addr().String(), Hello: "x"}).open()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	id, _ := ledger.begin()
	letter := newLetter(3, "a@client.test", "b@dest.test", 500)
	letter.text = append(letter.text[:len(letter.text)-10], "\r\n.\r\n"...)
	for _, step := range [][2]string{{"250", "MAIL FROM:<a@client.test>\r\n"}, {"250", "RCPT TO:<b@dest.test>\r\n"}, {"354", "DATA\r\n"}, {"250", string(letter.numbered(id))}} {
		if _, err := c.ask(step[0], step[1]); err != nil {
			t.Fatal(err)
		}
	}
	if j := ledger.Judge(); j.Damaged != 1 {
		t.Errorf("%+v", j)
	}
}
