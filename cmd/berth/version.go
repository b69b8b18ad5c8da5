package main

import (
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// release is set by the linker: see the Makefile.
var release string

// version returns the release, or what the toolchain recorded.
func version() string {
	if release != "" {
		return release
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "dev"
}

// versionInfo is the JSON of berth version.
type versionInfo struct {
	Version string `json:"version"`
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
}

func (c *cli) versionCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version of this command",
		Args:  exactly(),
		RunE: func(*cobra.Command, []string) error {
			v := versionInfo{version(), runtime.Version(), runtime.GOOS, runtime.GOARCH}
			if c.json {
				raw, err := json.Marshal(v)
				if err != nil {
					return err
				}
				return c.printJSON(raw)
			}
			fmt.Fprintf(c.out, "berth %s (%s, %s/%s)\n", v.Version, v.Go, v.OS, v.Arch)
			return nil
		},
	}
	return c.withJSON(cmd)
}
