package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/opencloud/ocnode/adapters/httpapi"
	"github.com/spf13/cobra"
)

// askCommand is a command that asks a running node. ask gets a client for it.
func (p *program) askCommand(cmd *cobra.Command, ask func(cmd *cobra.Command, node *httpapi.Client, args []string) error) *cobra.Command {
	file := cmd.Flags().String("config", "", "the configuration `file` that says where HTTP listens")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		api := p.api
		if api == "" {
			environ := p.environ
			if cmd.Flags().Changed("config") {
				environ = append(environ[:len(environ):len(environ)], "OCNODE_CONFIG="+*file)
			}
			var err error
			if api, err = p.listening(environ); err != nil {
				return err
			}
		}
		node, err := httpapi.NewClient(api)
		if err != nil {
			return usageError{fmt.Errorf("--api: %w", err)}
		}
		defer node.Close()
		return ask(cmd, node, args)
	}
	return cmd
}

// listening returns where the node that is configured here has its HTTP.
func (p *program) listening(environ []string) (string, error) {
	q := *p
	q.environ = environ
	plan, err := q.plan(nil)
	if err != nil {
		return "", err
	}
	listen := plan.HTTPListen()
	host, port, err := net.SplitHostPort(listen)
	switch {
	case listen == "":
		return "", usageError{fmt.Errorf("http.listen is empty, so the node has no HTTP to be asked over; name another node with --api")}
	case err != nil:
		return "", err
	case port == "0":
		return "", usageError{fmt.Errorf("the node's HTTP listens on a free port; its log's ready line says which: give it with --api")}
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port), nil
}

// print writes v as JSON, or text.
func (p *program) print(v any, text string) error {
	if p.output == "json" {
		e := json.NewEncoder(p.out)
		e.SetIndent("", "  ")
		return e.Encode(v)
	}
	_, err := io.WriteString(p.out, text)
	return err
}

// table lays rows out in columns, the first row their names.
func table(rows [][]string) string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 3, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	_ = w.Flush() // a strings.Builder takes everything
	return b.String()
}

// age says how long ago t was, or how long it is until then.
func age(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}
