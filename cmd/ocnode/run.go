package main

import (
	"errors"

	"github.com/opencloud/ocnode/modules"
	"github.com/spf13/cobra"
)

// runCommand runs a node; it is also the bare command.
func (p *program) runCommand() *cobra.Command {
	cmd := &cobra.Command{
		Args: cobra.NoArgs,
		Example: `  ocnode run --modules native,dht,gossip
  OCNODE_REGISTRY__TTL=90s ocnode run --config /etc/ocnode/config.yaml`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if p.output == "json" {
				return usageError{errors.New("a running node prints its log alone; --log.format json makes that JSON")}
			}
			plan, err := p.plan(cmd.Flags())
			if err != nil {
				return err
			}
			node, err := modules.New(plan, modules.Environment{Version: version(), Log: p.log})
			if err != nil {
				return err
			}
			return node.Run(cmd.Context())
		},
	}
	p.schema.AddFlags(cmd.Flags())
	return cmd
}

// idCommand prints the identity of the node that would run here.
func (p *program) idCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "id",
		Short:   "Print this node's PeerID",
		Long:    "Print the PeerID of the identity in data.dir. If there is none yet, it is made, so that\nothers can be told of a node before it first runs.",
		Example: "  ocnode id --data.dir /var/lib/ocnode",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := p.configure(cmd.Flags())
			if err != nil {
				return err
			}
			id, err := modules.Identity(cfg)
			if err != nil {
				return err
			}
			return p.print(struct {
				PeerID string `json:"peerID"`
			}{string(id)}, string(id)+"\n")
		},
	}
	p.schema.AddFlags(cmd.Flags())
	return cmd
}
