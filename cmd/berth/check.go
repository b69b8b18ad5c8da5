package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/berthd/berth/agent/config"
	"github.com/berthd/berth/agent/docker"
)

const checkHelp = `Check the configuration without running anything: every error at once, each with
its place, an excerpt and what would be right. With --online it also asks the
engine, as the daemon would.

It exits with 0 if all is right, and with 3 if not.`

func (c *cli) checkCommand() *cobra.Command {
	var files configFiles
	var online, quiet bool
	cmd := &cobra.Command{
		Use:     "check [file]",
		Short:   "Check the configuration",
		Long:    checkHelp,
		Example: "  berth check\n  berth check ./berth.yaml\n  berth check --online",
		Args:    atMost(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				files.file = args[0]
			}
			cfg, err := files.load()
			if c.json {
				return c.printCheck(cfg, err)
			}
			if err != nil {
				return err
			}
			for _, w := range cfg.result.Warnings {
				fmt.Fprintf(c.err, "berth: warning: %s\n", w)
			}
			if online {
				if err := c.checkEngine(cmd.Context(), cfg, quiet); err != nil {
					return err
				}
			}
			if !quiet {
				fmt.Fprintln(c.out, "The configuration is right: "+sources(cfg.files))
			}
			return nil
		},
	}
	files.flags(cmd.Flags())
	cmd.Flags().BoolVar(&online, "online", false, "also ask the engine")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "say nothing if all is right")
	return c.withJSON(cmd)
}

func sources(files []string) string {
	switch len(files) {
	case 0:
		return "there is no file, and the defaults are in force."
	case 1:
		return files[0]
	}
	return fmt.Sprintf("%s and %d files of conf.d", files[0], len(files)-1)
}

// checkEngine asks the engine, once.
func (c *cli) checkEngine(ctx context.Context, cfg *loaded, quiet bool) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	engine, err := docker.New(cfg.Engine)
	if err != nil {
		return err
	}
	defer func() { _ = engine.Close() }()
	info, err := engine.Identify(ctx)
	if err != nil {
		return withHint(err)
	}
	list, err := engine.List(ctx)
	if err != nil {
		return withHint(err)
	}
	if !quiet {
		fmt.Fprintf(c.out, "The engine answers: Docker %s (API %s) at %s, %d containers.\n", info.Version, info.API, engine.Host(), len(list.Rows))
	}
	return nil
}

// withHint appends what an error says about its remedy.
func withHint(err error) error {
	if h, ok := errors.AsType[*docker.Error](err); ok {
		return fmt.Errorf("%w: %s", err, h.Hint())
	}
	return err
}

// checkResult is the JSON of berth check.
type checkResult struct {
	Valid  bool         `json:"valid"`
	Files  []string     `json:"files"`
	Errors []checkError `json:"errors"`
}

type checkError struct {
	File    string `json:"file,omitempty"`
	Line    int    `json:"line,omitempty"`
	Column  int    `json:"column,omitempty"`
	Key     string `json:"key,omitempty"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

func (c *cli) printCheck(cfg *loaded, err error) error {
	res := checkResult{Valid: err == nil, Files: []string{}, Errors: []checkError{}}
	if cfg != nil {
		res.Files = append(res.Files, cfg.files...)
	}
	if bad, ok := errors.AsType[*config.Errors](err); ok {
		for _, e := range bad.List {
			res.Errors = append(res.Errors, checkError{e.File, e.Line, e.Column, e.Path, e.Msg, e.Hint})
		}
	} else if err != nil {
		res.Errors = append(res.Errors, checkError{Message: err.Error()})
	}
	raw, marshalErr := json.Marshal(res)
	if marshalErr != nil {
		return marshalErr
	}
	if printErr := c.printJSON(raw); printErr != nil {
		return printErr
	}
	if err != nil {
		return &codedError{codeConfig, errSilent}
	}
	return nil
}

// atMost accepts up to n arguments, of which those that are named must be there.
func atMost(n int, needed ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > n {
			return usageError(errors.New("too many arguments: " + args[n] + "\nTry: " + cmd.CommandPath() + " --help"))
		}
		return exactly(needed...)(cmd, args[:min(len(args), len(needed))])
	}
}
