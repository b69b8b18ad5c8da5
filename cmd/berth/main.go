// Command berth is the one agent on every Docker host: it runs as a daemon
// (berth run) and is its own client (berth status, services, explain, …).
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/berthd/berth/agent/admin"
	"github.com/berthd/berth/agent/config"
)

func main() { os.Exit(berth(os.Args[1:], os.Stdout, os.Stderr)) }

// berth runs one command and returns its exit code.
func berth(args []string, stdout, stderr io.Writer) int {
	root := newRoot(stdout, stderr)
	root.SetArgs(args)
	err := root.ExecuteContext(context.Background())
	if bad, ok := errors.AsType[*config.Errors](err); ok {
		_ = bad.Format(stderr, wantsColour(root.Flag("color").Value.String(), stderr))
	} else if err != nil && !errors.Is(err, errSilent) {
		fmt.Fprintf(stderr, "berth: %v\n", err)
	}
	return exitCode(err)
}

// exitCode returns what tells scripts how a command ended; the codes are
// documented in the root command's help.
func exitCode(err error) int {
	if err == nil {
		return 0
	}
	if coded, ok := errors.AsType[*codedError](err); ok {
		return coded.code
	}
	if _, ok := errors.AsType[*config.Errors](err); ok {
		return codeConfig
	}
	if said, ok := errors.AsType[*admin.Error](err); ok {
		switch said.Code {
		case 0:
			return codeUnreachable
		case 404, 409:
			return codeNotFound
		}
	}
	return codeFailed
}
