// Package sleeper is the sample application that does nothing, in every way
// that a test of a container's life asks for. Without flags it waits, and ends
// with status 0 at once on SIGTERM or SIGINT, also as process 1 of a
// container, where the kernel delivers no signal that has no handler.
package sleeper

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/berthd/berth/test/apps/serve"
)

// defaultHealthFile is where the health of a container is kept: its presence
// means healthy.
const defaultHealthFile = "/health"

// Run sleeps as its flags say, and ends the process itself where they ask for
// a status of their own:
//
//	-exit-after d   end by itself after d (0: at once; by default never)
//	-exit-code n    with this status, then; on a signal it is always 0
//	-crash          end by a panic (status 2), then, rather than by exit
//	-ignore-term    ignore SIGTERM and SIGINT, so that only SIGKILL ends it
//	-stop-delay d   take d to obey SIGTERM
//	-http addr      answer GET / with the instance's name, GET /health with 200
//	-healthy        create the health file at the start
//	-health-file f  the health file (see Health)
//
// It writes "ready" once it handles signals. SIGHUP is a reload: it is logged, and changes nothing.
func Run(args []string) error {
	fs := flag.NewFlagSet("sleeper", flag.ContinueOnError)
	exitAfter := fs.Duration("exit-after", -1, "end by itself after this time")
	exitCode := fs.Int("exit-code", 0, "status to end with by itself")
	crash := fs.Bool("crash", false, "end by itself with a panic")
	ignoreTerm := fs.Bool("ignore-term", false, "ignore SIGTERM and SIGINT")
	stopDelay := fs.Duration("stop-delay", 0, "time to take to obey a signal")
	listen := fs.String("http", "", "TCP address to answer HTTP on")
	healthy := fs.Bool("healthy", false, "create the health file at the start")
	healthFile := fs.String("health-file", defaultHealthFile, "file whose presence means healthy")
	if err := fs.Parse(args); err != nil {
		return err
	}

	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	if *healthy {
		if err := setHealth(*healthFile, true); err != nil {
			return err
		}
	}
	fmt.Println("ready")
	failed := make(chan error, 1)
	if *listen != "" {
		go func() { failed <- serve.HTTP(context.Background(), *listen, handler()) }()
	}
	var over <-chan time.Time
	if *exitAfter >= 0 {
		over = time.After(*exitAfter)
	}
	for {
		select {
		case err := <-failed:
			return err
		case <-over:
			if *crash {
				panic("crashing, as asked")
			}
			os.Exit(*exitCode)
		case s := <-signals:
			fmt.Println("got signal:", s)
			if s == syscall.SIGHUP || *ignoreTerm {
				continue
			}
			time.Sleep(*stopDelay)
			return nil
		}
	}
}

func handler() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, serve.Instance())
	})
	return mux
}

// Health is the command of a HEALTHCHECK: it returns nil when the health file
// exists. With -set=healthy or -set=unhealthy it makes it so first, and then
// never fails on account of the health.
func Health(args []string) error {
	flags := flag.NewFlagSet("health", flag.ContinueOnError)
	file := flags.String("file", defaultHealthFile, "file whose presence means healthy")
	set := flags.String("set", "", "healthy or unhealthy: become so")
	if err := flags.Parse(args); err != nil {
		return err
	}
	switch *set {
	case "healthy", "unhealthy":
		return setHealth(*file, *set == "healthy")
	case "":
		_, err := os.Stat(*file)
		return err
	default:
		return fmt.Errorf("-set=%s: want healthy or unhealthy", *set)
	}
}

func setHealth(file string, healthy bool) error {
	if healthy {
		return os.WriteFile(file, []byte("healthy\n"), 0o644)
	}
	if err := os.Remove(file); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
