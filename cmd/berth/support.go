package main

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"
)

const supportHelp = `Write a bundle to attach to a ticket: what berth says of itself, the effective
configuration with secrets redacted, its last log lines, and versions. It holds
the names, images and addresses of this host's containers, but none of their
labels, variables or logs. Parts that cannot be had are replaced by the reason.`

func (c *cli) supportCommand() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:     "support",
		Short:   "Write a bundle to attach to a ticket",
		Long:    supportHelp,
		Example: "  berth support\n  berth support --output /tmp/berth.tar.gz",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if path == "" {
				host, _ := os.Hostname()
				path = fmt.Sprintf("berth-support-%s-%s.tar.gz", host, time.Now().UTC().Format("20060102T150405Z"))
			}
			f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
			if err != nil {
				return fmt.Errorf("make the bundle: %w", err)
			}
			if err := errors.Join(c.writeBundle(cmd.Context(), f), f.Close()); err != nil {
				return fmt.Errorf("write the bundle: %w", err)
			}
			fmt.Fprintf(c.out, "Wrote %s. Look through it before you pass it on.\n", path)
			return nil
		},
	}
	cmd.Flags().StringVarP(&path, "output", "o", "", "file to write, which must not exist (default berth-support-<host>-<time>.tar.gz)")
	return cmd
}

func (c *cli) writeBundle(ctx context.Context, w io.Writer) error {
	zipped := gzip.NewWriter(w)
	bundle := tar.NewWriter(zipped)
	ask := func(path string) func(context.Context) ([]byte, error) {
		return func(ctx context.Context) ([]byte, error) { return c.client().Raw(ctx, path, nil) }
	}
	run := func(name string, args ...string) func(context.Context) ([]byte, error) {
		return func(ctx context.Context) ([]byte, error) {
			return exec.CommandContext(ctx, name, args...).CombinedOutput()
		}
	}
	for _, part := range []struct {
		name string
		get  func(context.Context) ([]byte, error)
	}{
		{"status.json", ask("/v1/status")},
		{"containers.json", ask("/v1/containers")},
		{"config.json", ask("/v1/config")},
		{"services.json", ask("/v1/discovery/services")},
		{"version.txt", func(context.Context) ([]byte, error) {
			info, _ := debug.ReadBuildInfo()
			return []byte("berth " + version() + "\n" + info.String()), nil
		}},
		{"log.txt", run("journalctl", "--unit=berth", "--lines=2000", "--no-pager", "--output=short-iso")},
		{"engine.txt", run("docker", "version")},
		{"kernel.txt", func(context.Context) ([]byte, error) { return os.ReadFile("/proc/version") }},
		{"os-release.txt", func(context.Context) ([]byte, error) { return os.ReadFile("/etc/os-release") }},
	} {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		data, err := part.get(ctx)
		cancel()
		if err != nil {
			data = append(data, fmt.Sprintf("\n(%s could not be had: %v)\n", part.name, err)...)
		}
		head := &tar.Header{Name: filepath.Join("berth-support", part.name), Mode: 0o600, Size: int64(len(data)), ModTime: time.Now()}
		if err := bundle.WriteHeader(head); err != nil {
			return err
		}
		if _, err := bundle.Write(data); err != nil {
			return err
		}
	}
	return errors.Join(bundle.Close(), zipped.Close())
}
