package delivery

import "context"

// A Step is what happened on the way to a server.
type Step struct {
	Host  string // as "name [address]"
	IPv6  bool
	Kept  bool  // a connection of before is used once more
	Ready bool  // mail can be sent, and TLS is said
	TLS   TLS   // with Ready or Kept
	Err   error // why this address is of no use now
}

type stepsKey struct{}

// WithSteps has the deliveries under ctx tell f each step as it happens, from the goroutine of Deliver.
// f must be quick.
func WithSteps(ctx context.Context, f func(Step)) context.Context {
	return context.WithValue(ctx, stepsKey{}, f)
}

func tellStep(ctx context.Context, a target, s Step) {
	if f, ok := ctx.Value(stepsKey{}).(func(Step)); ok {
		s.Host, s.IPv6 = a.String(), a.isIPv6()
		f(s)
	}
}
