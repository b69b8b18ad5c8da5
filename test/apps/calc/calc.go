// Package calc is the sample service that adds: GET /add?a=1&b=2 answers with
// an Answer.
package calc

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"strconv"

	"github.com/berthd/berth/test/apps/metrics"
	"github.com/berthd/berth/test/apps/serve"
)

// Answer is what /add answers, as JSON.
type Answer struct {
	Sum      int    `json:"sum"`
	Instance string `json:"instance"` // the container that answered
}

// Run serves until ctx ends. Its flags are -listen and -metrics.
func Run(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("calc", flag.ContinueOnError)
	listen := fs.String("listen", ":8080", "TCP address to serve on")
	count := fs.String("metrics", "", metrics.Usage)
	if err := fs.Parse(args); err != nil {
		return err
	}
	return serve.HTTP(ctx, *listen, metrics.Counting(Handler(), "calc.requests", *count))
}

// Handler returns the service's paths.
func Handler() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /add", add)
	return mux
}

func add(w http.ResponseWriter, r *http.Request) {
	a, errA := strconv.Atoi(r.FormValue("a"))
	b, errB := strconv.Atoi(r.FormValue("b"))
	if errA != nil || errB != nil {
		http.Error(w, fmt.Sprintf("a and b must be whole numbers, got %q and %q",
			r.FormValue("a"), r.FormValue("b")), http.StatusBadRequest)
		return
	}
	serve.JSON(w, http.StatusOK, Answer{Sum: a + b, Instance: serve.Instance()})
}
