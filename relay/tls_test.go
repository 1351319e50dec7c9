package relay

import (
	"testing"

	"relayd/delivery"
	"relayd/reply"
)

func TestOutcomeTellsOfTLS(t *testing.T) {
	for want, tls := range map[string]delivery.TLS{
		"":               {},
		"none":           {By: delivery.ByNone},
		"TLS1.3 mta-sts": {Version: "TLS1.3", Cipher: "TLS_AES_128_GCM_SHA256", By: delivery.BySTS},
	} {
		if o := outcome(delivery.Result{Reply: reply.New(250, "2.0.0", "Ok"), TLS: tls}); o.TLS != want {
			t.Errorf("%+v is told as %q", tls, o.TLS)
		}
	}
}
