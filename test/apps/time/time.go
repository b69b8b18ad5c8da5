// Package time is the sample service that tells the time: GET /now answers
// with an Answer.
package time

import (
	"context"
	"flag"
	"net/http"
	"time"

	"github.com/berthd/berth/test/apps/metrics"
	"github.com/berthd/berth/test/apps/serve"
)

// Answer is what /now answers, as JSON.
type Answer struct {
	Now      time.Time `json:"now"`      // in UTC
	Instance string    `json:"instance"` // the container that answered
}

// Run serves until ctx ends. Its flags are -listen and -metrics.
func Run(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("time", flag.ContinueOnError)
	listen := fs.String("listen", ":8080", "TCP address to serve on")
	count := fs.String("metrics", "", metrics.Usage)
	if err := fs.Parse(args); err != nil {
		return err
	}
	return serve.HTTP(ctx, *listen, metrics.Counting(Handler(), "time.requests", *count))
}

// Handler returns the service's paths.
func Handler() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /now", func(w http.ResponseWriter, _ *http.Request) {
		serve.JSON(w, http.StatusOK, Answer{Now: time.Now().UTC(), Instance: serve.Instance()})
	})
	return mux
}
