package cmd

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/opencloud/ocnode/modules"
	"github.com/opencloud/ocnode/modules/config"
	"github.com/spf13/cobra"
)

// stdio names standard input or output where a file is asked for.
const stdio = "-"

func (p *program) configCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Write, check and show the configuration",
		Long: `Write, check and show the configuration: defaults, below a file, below variables
(OCNODE_REGISTRY__TTL=90s), below flags (--registry.ttl 90s).`,
		Example: `  ocnode config init            write a config.yaml to begin with
  ocnode config check           tell all that is wrong, before a node is started
  ocnode config show --origin   what counts in the end, and why`,
	}
	cmd.AddCommand(p.configInitCommand(), p.configCheckCommand(), p.configShowCommand())
	return cmd
}

// unknown is the error of a word that is none of those that are known.
func unknown(kind, given, word string, known []string) error {
	hint := ""
	if near := config.Nearest(word, known); near != "" {
		hint = ", did you mean " + near + "?"
	}
	return fmt.Errorf("there is no %s %q%s; the %ss are %s", kind, given, hint, kind, strings.Join(known, ", "))
}

func (p *program) configInitCommand() *cobra.Command {
	role := ""
	cmd := &cobra.Command{
		Use:   "init [FILE]",
		Short: "Write a configuration file to begin with",
		Long: `Write a configuration file to begin with: every key that a node of this role may need,
at its default, with what it is for. The flags of keys say what is to stand there
instead, and without --role which modules are on say what the node is there for. The
file is FILE, or where a node would look for it (--config, OCNODE_CONFIG,
` + config.DefaultFile + `), or - for standard output. A file that is there already stays as it is.`,
		Example: `  ocnode config init
  ocnode config init --role indexer --indexer.natives /dns4/a.example/tcp/4101/p2p/12D3Koo…
  ocnode config init - | less`,
		Args: atMostOneFile,
		RunE: func(cmd *cobra.Command, args []string) error { return p.configInit(cmd, role, args) },
	}
	cmd.Flags().StringVar(&role, "role", role, "what the node is there for: "+strings.Join(modules.Roles(), " or ")+" (default native, unless modules say otherwise)")
	_ = cmd.RegisterFlagCompletionFunc("role", cobra.FixedCompletions(modules.Roles(), cobra.ShellCompDirectiveNoFileComp))
	p.schema.AddFlags(cmd.Flags())
	cmd.Flags().Lookup("config").Usage = "the configuration `file` to write, as FILE"
	return cmd
}

func (p *program) configInit(cmd *cobra.Command, role string, args []string) error {
	if cmd.Flags().Changed("role") && !slices.Contains(modules.Roles(), role) {
		return usageError{unknown("role", role, role, modules.Roles())}
	}
	if cmd.Flags().Changed("role") && cmd.Flags().Changed("modules") {
		return usageError{errors.New("--role and --modules both say which modules are on; give one of them")}
	}
	if err := p.named(cmd, args); err != nil {
		return err
	}
	path := cmp.Or(cmd.Flags().Lookup("config").Value.String(), p.getenv("OCNODE_CONFIG"), config.DefaultFile)
	if path == stdio && p.output == "json" {
		return usageError{errors.New("config init - prints the file, in YAML; leave -o json out")}
	}
	if err := cmd.Flags().Set("config", ""); err != nil { // it is to be written, not read
		return err
	}
	draft, err := modules.NewDraft(p.modules, role, config.Sources{Flags: cmd.Flags()})
	if err != nil {
		return err
	}
	if path == stdio {
		return p.print(nil, draft.Text)
	}
	if err := create(path, draft.Text); err != nil {
		return err
	}
	at := ""
	if path != config.DefaultFile {
		at = " --config " + path
	}
	next := "next: ocnode run" + at
	if len(draft.Open) > 0 {
		next = fmt.Sprintf("next: fill in %s, then ocnode config check%s", strings.Join(draft.Open, ", "), at)
	}
	return p.print(struct {
		File string `json:"file"`
		// Role is "" for a node that is several things, or none of --role.
		Role   string   `json:"role"`
		FillIn []string `json:"fillIn"`
	}{path, draft.Role, append([]string{}, draft.Open...)}, fmt.Sprintf("wrote %s\n%s\n", path, next))
}

// create writes a file that must not be there yet, whole or not at all.
func create(path, text string) error {
	folder := filepath.Dir(path)
	err := fs.ErrExist
	if !isThere(path) {
		// Not os.CreateTemp: its files are for nobody else to read, and this one has no secret.
		temporary := filepath.Join(folder, "."+filepath.Base(path)+"."+strconv.FormatUint(rand.Uint64(), 36))
		defer os.Remove(temporary)
		if err = write(temporary, text); err == nil {
			err = os.Link(temporary, path) // which, unlike a rename, never goes over what is there
		}
		if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, syscall.EPERM) { // some file systems have no links
			if err = write(path, text); err != nil && !errors.Is(err, fs.ErrExist) {
				_ = os.Remove(path) // it is half-written, if it is there at all
			}
		}
	}
	switch {
	case errors.Is(err, fs.ErrExist):
		return fmt.Errorf("%s is there already and stays as it is; name another file, or - to print what would be written", path)
	case errors.Is(err, fs.ErrNotExist) && !isThere(folder):
		return fmt.Errorf("%s cannot be written: there is no folder %s; make it first, for example with mkdir -p %s", path, folder, folder)
	case err != nil:
		return fmt.Errorf("%s cannot be written: %w; name a file in a folder that you may write to, or - to print it", path, cause(err))
	}
	return nil
}

// isThere reports whether there is something by that name, be it a link to nowhere.
func isThere(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// write writes a new file, and all the way to the disk.
func write(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return cmp.Or(err, f.Sync(), f.Close())
}

// cause is what went wrong, without the paths, one of which nobody asked for.
func cause(err error) error {
	var path *fs.PathError
	var link *os.LinkError
	switch {
	case errors.As(err, &path):
		return path.Err
	case errors.As(err, &link):
		return link.Err
	}
	return err
}

func (p *program) configCheckCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check [FILE]",
		Short: "Tell all that is wrong with the configuration",
		Long: `Tell all that is wrong with the configuration of a node that would be started here with
the same flags, in one go: each mistake with the file's line, the variable or the flag
that it comes from, and what is allowed. FILE is as --config FILE; - is standard input.`,
		Example: `  ocnode config check
  ocnode config check /etc/ocnode/config.yaml
  ocnode config check -o json`,
		Args: atMostOneFile,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 && args[0] == stdio {
				args[0] = "/dev/stdin"
			}
			if err := p.named(cmd, args); err != nil {
				return err
			}
			cfg, err := p.configure(cmd.Flags())
			if cfg == nil {
				return err
			}
			_, err = modules.NewPlan(p.modules, cfg)
			return errors.Join(err, p.checked(cfg, p.withoutFile(cmd, args), err))
		},
	}
	p.schema.AddFlags(cmd.Flags())
	return cmd
}

// withoutFile says why no file was read, if none was.
func (p *program) withoutFile(cmd *cobra.Command, args []string) string {
	empty := "OCNODE_CONFIG"
	switch {
	case len(args) > 0:
		empty = "FILE"
	case cmd.Flags().Changed("config"):
		empty = "--config"
	case !slices.Contains(p.environ, empty+"="):
		return "there is no " + config.DefaultFile + " here"
	}
	return "no file was read, as an empty " + empty + " asks"
}

// mistake is a mistake in JSON.
type mistake struct {
	// Origin is "config.yaml:12", "OCNODE_REGISTRY__TTL", "--registry.ttl" or "default",
	// where the default does not go with what was set elsewhere.
	Origin string `json:"origin"`
	// Line is the line in the file, 0 if the file is not to blame, or as a whole.
	Line    int    `json:"line"`
	Key     string `json:"key"`
	Message string `json:"message"`
}

// checked prints what came out of a check, and why no file was read if none was. In
// words, what is wrong is printed as every error is.
func (p *program) checked(cfg *config.Config, withoutFile string, err error) error {
	if err != nil && p.output != "json" {
		return nil
	}
	doc := struct {
		// File is the file that was read, "" for none.
		File string `json:"file"`
		// Above are the variables and flags over it.
		Above    []string  `json:"above"`
		Mistakes []mistake `json:"mistakes"`
	}{cfg.File(), append([]string{}, cfg.Above()...), []mistake{}}
	var all *config.Error
	if errors.As(err, &all) {
		for _, m := range all.Mistakes {
			doc.Mistakes = append(doc.Mistakes, mistake{m.Origin.String(), m.Origin.Line, m.Key, m.Message})
		}
	}
	read := strings.Join(cfg.Above(), ", ")
	switch {
	case cfg.File() != "":
		read = strings.Join(append([]string{cfg.File()}, cfg.Above()...), ", ")
	case read == "":
		read = withoutFile + ", so all is at its default"
	}
	return p.print(doc, read+": no mistakes\n")
}

func (p *program) configShowCommand() *cobra.Command {
	origin := false
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Show what counts in the end",
		Long: `Show the configuration of a node that would be started here with the same flags. What is
printed is a configuration file for the same node. A key that is commented out has a
default that depends on what else the node is, and is shown as it will be.`,
		Example: `  ocnode config show --origin
  OCNODE_LOG__LEVEL=debug ocnode config show --registry.ttl 90s -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := p.configure(cmd.Flags())
			if cfg == nil {
				return err
			}
			_, err = modules.NewPlan(p.modules, cfg)
			return errors.Join(err, p.show(modules.Effective(cfg), origin))
		},
	}
	cmd.Flags().BoolVar(&origin, "origin", false, "show where each value comes from")
	p.schema.AddFlags(cmd.Flags())
	return cmd
}

// show prints all keys, in YAML or JSON.
func (p *program) show(sections []modules.Section, origin bool) error {
	var text config.Document
	doc := map[string]map[string]any{}
	for _, section := range sections {
		part, values := config.Part{Section: section.Name}, map[string]any{}
		for _, s := range section.Settings {
			line, value := config.Line{Key: s.Key, Value: s.Value, Aside: s.Left}, s.Value
			if d, ok := value.(time.Duration); ok {
				value = config.Text(d)
			}
			if origin {
				line.Note = s.Origin
				value = struct {
					Value  any    `json:"value"`
					Origin string `json:"origin"`
				}{value, s.Origin}
			}
			part.Lines = append(part.Lines, line)
			values[strings.TrimPrefix(s.Key.Name, section.Name+".")] = value
		}
		text.Parts = append(text.Parts, part)
		doc[section.Name] = values
	}
	return p.print(doc, text.String())
}

func atMostOneFile(cmd *cobra.Command, args []string) error {
	if len(args) > 1 {
		return fmt.Errorf("%s takes one file and got %d", strings.TrimPrefix(cmd.CommandPath(), "ocnode "), len(args))
	}
	return nil
}

// named takes the file that the command line names as FILE for that of --config.
func (p *program) named(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if cmd.Flags().Changed("config") {
		return usageError{fmt.Errorf("--config and %q both name the file; give one of them", args[0])}
	}
	return cmd.Flags().Set("config", args[0])
}
