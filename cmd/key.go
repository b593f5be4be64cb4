package cmd

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/opencloud/ocnode/modules"
	"github.com/spf13/cobra"
)

func (p *program) keyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "key",
		Short:   "Make the key of a private network",
		Long:    "Make the key of a private network. A node's own key, which is who it is, is made by itself.",
		Example: "  ocnode key psk swarm.key",
	}
	cmd.AddCommand(p.keyPSKCommand())
	return cmd
}

func (p *program) keyPSKCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "psk [FILE]",
		Short: "Make the key of a private network, once for all of its nodes",
		Long: `Make the key of a private network, as host.psk names it: at random, in the form of other
swarm keys of libp2p. It is printed, or written to FILE with mode 0600. A file that is
there already stays as it is.

Copy it to each node. Who has the key is let in, and nobody else is.`,
		Example: `  ocnode key psk swarm.key
  ocnode run --host.psk swarm.key`,
		Args: atMostOneFile,
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 || args[0] == stdio {
				key := modules.NewPSK()
				return p.print(struct {
					Key string `json:"key"`
				}{key}, key)
			}
			file := args[0]
			if file == "" {
				return usageError{errors.New("the name of the file is empty; name one, such as network.psk, or none to print the key")}
			}
			switch err := modules.CreatePSK(file); {
			case errors.Is(err, fs.ErrExist):
				return fmt.Errorf("%s is there already and stays as it is; name another file", file)
			case errors.Is(err, fs.ErrNotExist):
				return fmt.Errorf("%s cannot be written: there is no folder %s; make it first, for example with mkdir -p %[2]s", file, filepath.Dir(file))
			case err != nil:
				return fmt.Errorf("%s cannot be written: %w; name a file in a folder that you may write to", file, cause(err))
			}
			return p.print(struct {
				File string `json:"file"`
			}{file}, fmt.Sprintf("wrote %s\nnext: copy it to each node, and start them with --host.psk %[1]s\n", file))
		},
	}
}
