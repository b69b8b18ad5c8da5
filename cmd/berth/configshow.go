package main

import (
	"net/url"

	"github.com/spf13/cobra"

	"github.com/berthd/berth/agent/config"
)

const configShowHelp = `Print the effective configuration: every value that is in force, with the place
that it comes from behind it. Secrets are shown by where they are kept, never by
what they are.

It asks the running berth; with --config it reads the files instead,
and shows what a start or a reload would put in force.`

func (c *cli) configCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Show the configuration",
		Args:  exactly(),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var files configFiles
	show := &cobra.Command{
		Use:     "show",
		Short:   "Print the configuration that is in force, and where each value comes from",
		Long:    configShowHelp,
		Example: "  berth config show\n  berth config show --config ./berth.yaml\n  berth config show --json | jq .config.dns",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("config") || cmd.Flags().Changed("conf-d") || cmd.Flags().Changed("set") {
				cfg, err := files.load()
				if err != nil {
					return err
				}
				if c.json {
					return c.printJSON(config.JSON(cfg.Config, cfg.result))
				}
				_, err = c.out.Write(config.Effective(cfg.Config, cfg.result))
				return err
			}
			query := url.Values{"format": {"yaml"}}
			if c.json {
				query = nil
			}
			raw, err := c.client().Raw(cmd.Context(), "/v1/config", query)
			if err != nil {
				return err
			}
			if c.json {
				return c.printJSON(raw)
			}
			_, err = c.out.Write(raw)
			return err
		},
	}
	files.flags(show.Flags())
	cmd.AddCommand(c.withJSON(show))
	return cmd
}
