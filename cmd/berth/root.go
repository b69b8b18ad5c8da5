package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/berthd/berth/agent/admin"
)

// The exit codes of every command.
const (
	codeFailed      = 1 // it failed
	codeUsage       = 2 // the command line makes no sense
	codeConfig      = 3 // the configuration is wrong
	codeUnreachable = 4 // no running berth answers
	codeNotFound    = 5 // it answers that there is no such container or service, or more than one
	codeUnhealthy   = 6 // berth status --exit-code: something is wrong on this host
	codeMissing     = 7 // berth cluster-scale: some reading was missing
)

// codedError carries an exit code of its own.
type codedError struct {
	code int
	err  error
}

func (e *codedError) Error() string { return e.err.Error() }
func (e *codedError) Unwrap() error { return e.err }

// errSilent ends a command whose output has already said it all.
var errSilent = errors.New("")

func usageError(err error) error { return &codedError{codeUsage, err} }

// cli is what the subcommands share.
type cli struct {
	out, err io.Writer
	socket   string
	json     bool
	colour   string
}

func (c *cli) client() *admin.Client { return admin.NewClient(c.socket) }

const rootHelp = `berth is the one agent on every Docker host. It follows the engine's containers
and gives them what they need from their host: names in DNS, and more to come.

Run it as a daemon with "berth run" (packages do, through systemd), and ask the
running one with the other commands. What it does is set in
/etc/berth/berth.yaml and /etc/berth/conf.d/*.yaml; without either, defaults
that need no cloud are in force.`

const rootExample = `  berth status                 one screen: this host, what is wrong, what to do
  berth services               the names that containers have, and where they lead
  berth explain web            why the container web has a name, or has none
  berth check                  is the configuration right?
  berth services --json | jq   everything that prints has --json`

const exitCodes = `
Exit codes:
  0  it worked            3  the configuration is wrong
  1  it failed            4  no running berth answers
  2  wrong usage          5  no such container or service, or more than one
                          6  something is wrong on this host (status --exit-code)
                          7  some reading was missing (cluster-scale)
`

func newRoot(stdout, stderr io.Writer) *cobra.Command {
	c := &cli{out: stdout, err: stderr}
	root := &cobra.Command{
		Use:           "berth",
		Short:         "The one agent on every Docker host",
		Long:          rootHelp,
		Example:       rootExample,
		SilenceErrors: true,
		SilenceUsage:  true,

		SuggestionsMinimumDistance: 2,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			text := fmt.Sprintf("there is no command %q", args[0])
			if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
				text += ": did you mean " + strings.Join(near, " or ") + "?"
			}
			return usageError(errors.New(text + "\nTry: berth --help"))
		},
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if !slices.Contains([]string{"auto", "always", "never"}, c.colour) {
				return usageError(fmt.Errorf("--color=%s: give auto, always or never", c.colour))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cmd.Help()
		},
	}
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError(errors.New(err.Error() + "\nTry: " + cmd.CommandPath() + " --help"))
	})
	root.SetHelpTemplate(root.HelpTemplate() + "{{if not .HasParent}}" + exitCodes + "{{end}}")
	root.CompletionOptions.HiddenDefaultCmd = true

	socket := os.Getenv("BERTH_SOCKET")
	if socket == "" {
		socket = admin.DefaultSocket
	}
	flags := root.PersistentFlags()
	flags.StringVar(&c.socket, "socket", socket, "admin socket of the running berth (also BERTH_SOCKET)")
	flags.StringVar(&c.colour, "color", "auto", "colours: auto (on a terminal), always or never")

	root.AddCommand(
		c.runCommand(),
		c.checkCommand(),
		c.statusCommand(),
		c.containersCommand(),
		c.servicesCommand(),
		c.portsCommand(),
		c.explainCommand(),
		c.statsdCommand(),
		c.pruneCommand(),
		c.configCommand(),
		c.reloadCommand(),
		c.deregisterCommand(),
		c.clusterScaleCommand(),
		c.usageCommand(),
		c.supportCommand(),
		c.versionCommand(),
	)
	return root
}

// exactly is cobra.ExactArgs with an error that says what is missing.
func exactly(what ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < len(what):
			return usageError(errors.New("say which " + what[len(args)] + "\nTry: " + cmd.CommandPath() + " --help"))
		case len(args) > len(what):
			return usageError(errors.New("too many arguments: " + args[len(what)] + "\nTry: " + cmd.CommandPath() + " --help"))
		}
		return nil
	}
}

// withJSON adds --json.
func (c *cli) withJSON(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().BoolVar(&c.json, "json", false, "print JSON, for scripts")
	return cmd
}
