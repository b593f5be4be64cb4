package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// MaxFileBytes bounds the file: a hundred times what every key at its fullest takes.
const MaxFileBytes = 1 << 20

// file finds and reads the file. It returns its path, "" if there is none, and the
// values that it sets, by key.
func (l *loader) file() (path string, values map[string]any) {
	path, named := lookup(l.src.Environ, envConfig)
	if f := orEmpty(l.src.Flags).Lookup(flagConfig); f != nil && f.Changed {
		path, named = f.Value.String(), true
	}
	if !named {
		path = l.src.File
	}
	if path == "" {
		return "", nil
	}
	text, err := read(path)
	if errors.Is(err, fs.ErrNotExist) && !named {
		return "", nil
	}
	y := yamlFile{loader: l, path: path, values: map[string]any{}}
	if err != nil {
		y.mistake(0, "", "", err.Error()+"; name a readable YAML file, or none")
		return path, nil
	}
	root, line, err := parse(text)
	if err != nil {
		y.mistake(line, "", "", err.Error())
		return path, nil
	}
	y.walk(root)
	return path, y.values
}

// read reads a file of bounded size. The error does not repeat the path.
func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, cause(err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, MaxFileBytes+1))
	if err != nil {
		return nil, cause(err)
	}
	if len(text) > MaxFileBytes {
		return nil, fmt.Errorf("larger than %d bytes", MaxFileBytes)
	}
	return text, nil
}

func cause(err error) error {
	if in, ok := errors.AsType[*fs.PathError](err); ok {
		return in.Err
	}
	return err
}

// parse returns the root of the one document, nil if the file is empty. Of an error it
// says the line, 0 if that is not known.
func parse(text []byte) (root *yaml.Node, line int, err error) {
	// The library does not say where such a character stands.
	for i, content := range bytes.Split(text, []byte("\n")) {
		content = bytes.TrimSuffix(content, []byte("\r"))
		if !utf8.Valid(content) || bytes.ContainsFunc(content, isControl) {
			return nil, i + 1, errors.New("a control character, or not UTF-8; write plain text")
		}
	}
	documents := yaml.NewDecoder(bytes.NewReader(text))
	var document, second yaml.Node
	if err := documents.Decode(&document); err == io.EOF {
		return nil, 0, nil
	} else if err != nil {
		return nil, lineOf(err, text), notYAML(err)
	}
	if err := documents.Decode(&second); err == nil {
		return nil, second.Line, errors.New("a second document; put everything into one")
	} else if err != io.EOF {
		return nil, lineOf(err, text), notYAML(err)
	}
	return document.Content[0], 0, nil
}

// isControl reports what YAML does not allow, or takes for the end of a line where an
// editor, by which people count lines, does not.
func isControl(r rune) bool {
	return unicode.IsControl(r) && r != '\t' || slices.Contains([]rune{'\u2028', '\u2029', '\uFFFE', '\uFFFF'}, r)
}

var (
	yamlError = regexp.MustCompile(`^(?:yaml: )?(?:line (\d+): )?(.*)`)
	// zeroBased are the errors of the library's parser, which counts lines from 0,
	// while its scanner counts from 1; either leaves its first line out.
	zeroBased = regexp.MustCompile(`^(did not find expected (<|'-'|key|',' or|node content)|found (duplicate|incompatible|undefined))`)
)

func notYAML(err error) error {
	return fmt.Errorf("not YAML: %s", yamlError.FindStringSubmatch(err.Error())[2])
}

func lineOf(err error, text []byte) int {
	match := yamlError.FindStringSubmatch(err.Error())
	if strings.HasPrefix(match[2], "unknown anchor") {
		return lineOfAlias(match[2], text)
	}
	line, _ := strconv.Atoi(match[1])
	if zeroBased.MatchString(match[2]) {
		line++
	}
	// What ends too early is blamed on the line after the last.
	return min(max(line, 1), 1+bytes.Count(bytes.TrimRight(text, "\r\n"), []byte("\n")))
}

// lineOfAlias finds the alias of an unknown anchor, of which the library does not say
// the line; 0 if more than one place looks like it.
func lineOfAlias(message string, text []byte) int {
	_, name, _ := strings.Cut(message, "'")
	name, _, _ = strings.Cut(name, "'")
	alias := regexp.MustCompile(`(^|[\s\[{,:-])\*` + regexp.QuoteMeta(name) + `($|[\s\]},])`)
	found := 0
	for i, line := range bytes.Split(text, []byte("\n")) {
		switch {
		case !alias.Match(line):
		case found > 0:
			return 0
		default:
			found = i + 1
		}
	}
	return found
}

// yamlFile is the walk through one file.
type yamlFile struct {
	*loader
	path   string
	values map[string]any
	// again counts the keys around this place that were given before: what is said here
	// is examined and does not count.
	again int
	// within is the list or the map around this place, "" outside of any.
	within string
}

func (y *yamlFile) at(line int) Origin { return Origin{File, y.path, line} }

func (y *yamlFile) mistake(line int, key, value, message string) {
	y.note(Mistake{Origin: y.at(line), Key: key, Value: value, Message: message, within: y.within})
}

// walk goes through the top level. A section without a value is as good as none: all its
// keys may be commented out.
func (y *yamlFile) walk(root *yaml.Node) {
	if root == nil || isNull(root) {
		return
	}
	if root.Kind != yaml.MappingNode {
		y.mistake(root.Line, "", "", describe(root)+" is not a map of sections; the sections are "+strings.Join(y.sections, ", "))
		return
	}
	y.entries("", root, func(section string, line int, node *yaml.Node) {
		switch key, dotted := y.byName[section]; {
		case dotted:
			message := fmt.Sprintf("unknown key; write %s: {%s: …}", strings.TrimSuffix(key.Name, "."+key.leaf()), key.leaf())
			y.note(Mistake{Origin: y.at(line), Key: section, Value: node.Value, Message: message, misplaced: true})
		case len(y.section(section)) == 0:
			y.unknown(y.at(line), section, func(k Key) string { return k.Name })
		case isNull(node):
		case node.Kind != yaml.MappingNode:
			y.mistake(line, section, node.Value, describe(node)+" is not a section; write e.g. "+y.sectionExample(section))
		default:
			y.entries(section, node, y.key)
		}
	})
}

func (y *yamlFile) sectionExample(section string) string {
	key := y.section(section)[0]
	example, _ := strings.CutPrefix(key.example(), "e.g. ")
	if key.Type == typeBool {
		example = "true"
	}
	return fmt.Sprintf("%s: {%s: %s}", section, key.leaf(), example)
}

// key takes the value of one key.
func (y *yamlFile) key(name string, line int, node *yaml.Node) {
	key, ok := y.byName[name]
	if !ok {
		y.unknown(y.at(line), name, func(k Key) string { return k.Name })
		return
	}
	var value any
	var items map[string]Origin
	switch {
	case isNull(node):
		y.mistake(line, name, "", "no value; write "+key.example()+", or leave the key out")
		return
	case key.Type == typeList && node.Kind == yaml.SequenceNode:
		value, items = y.list(key, node)
	case key.Type == typeMap && node.Kind == yaml.MappingNode:
		value, items = y.pairs(key, node)
	case key.Type == typeList || key.Type == typeMap:
		y.mistake(line, name, node.Value, key.wrong(describe(node)).Error())
		return
	default:
		if value, ok = y.scalar(key, line, node); !ok {
			return
		}
	}
	if y.again == 0 {
		y.values[name] = value
		y.came(y.at(line), name)
		y.items[name] = items
	}
}

// scalar reads text as a variable or a flag would give it, so that all layers agree,
// but does not take a quoted boolean or number for one.
func (y *yamlFile) scalar(key Key, line int, node *yaml.Node) (value any, ok bool) {
	value, err := key.parse(node.Value)
	tag, typed := map[string]string{typeBool: "!!bool", typeInt: "!!int"}[key.Type]
	switch {
	case node.Kind != yaml.ScalarNode:
		err = key.wrong(describe(node))
	case node.Style&yaml.TaggedStyle != 0:
		err = fmt.Errorf("the tag %s is not supported; write the value alone", quote(node.Tag))
	case err == nil && typed && node.ShortTag() != tag:
		given := quote(node.Value)
		if node.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0 {
			given += " in quotes"
		}
		err = key.wrong(given)
	}
	if err != nil {
		y.mistake(line, key.Name, node.Value, err.Error())
	}
	return value, err == nil
}

// list reads the strings of a list, without those that are none.
func (y *yamlFile) list(key Key, node *yaml.Node) (items []string, from map[string]Origin) {
	y.within = key.Name
	defer func() { y.within = "" }()
	items, from = []string{}, map[string]Origin{}
	for _, item := range node.Content {
		line, item := item.Line, resolve(item)
		switch {
		case isNull(item) || item.Kind == yaml.ScalarNode && item.Value == "":
			y.mistake(line, key.Name, "", "an empty item; write "+key.example())
		case y.isText(key.Name, line, item):
			from[strconv.Itoa(len(items))] = y.at(line)
			items = append(items, item.Value)
		}
	}
	return items, from
}

// pairs reads the strings of a map, without those that are none.
func (y *yamlFile) pairs(key Key, node *yaml.Node) (pairs map[string]string, from map[string]Origin) {
	y.within = key.Name
	defer func() { y.within = "" }()
	pairs, from = map[string]string{}, map[string]Origin{}
	y.entries(key.Name, node, func(path string, line int, value *yaml.Node) {
		switch name := strings.TrimPrefix(path, key.Name+"."); {
		case name == "":
			y.mistake(line, key.Name, "", "an empty name; write "+key.example())
		case isNull(value):
			y.mistake(line, path, "", `no value; write "" for an empty one`)
		case y.isText(path, line, value) && y.again == 0:
			pairs[name], from[name] = value.Value, y.at(line)
		}
	})
	return pairs, from
}

// isText reports whether there is a string inside a list or a map, and a mistake if not.
func (y *yamlFile) isText(path string, line int, node *yaml.Node) bool {
	_, ok := y.scalar(Key{Name: path, Type: typeString, Default: ""}, line, node)
	return ok
}

// entries calls each for every entry of a mapping that stands there for the first time.
func (y *yamlFile) entries(prefix string, mapping *yaml.Node, each func(path string, line int, value *yaml.Node)) {
	first := map[string]int{}
	for i := 0; i < len(mapping.Content); i += 2 {
		line := mapping.Content[i].Line
		key, value := resolve(mapping.Content[i]), resolve(mapping.Content[i+1])
		path := key.Value
		if prefix != "" {
			path = prefix + "." + path
		}
		switch seen := first[key.Value]; {
		case key.Kind != yaml.ScalarNode:
			y.mistake(line, prefix, "", describe(key)+" as a key; write a word")
		case seen > 0:
			y.mistake(line, path, value.Value, fmt.Sprintf("given twice, first in line %d; remove one", seen))
			y.again++ // whoever puts the two together wants to know what is wrong in either
			each(path, line, value)
			y.again--
		default:
			first[key.Value] = line
			each(path, line, value)
		}
	}
}

func resolve(node *yaml.Node) *yaml.Node {
	if node.Kind == yaml.AliasNode {
		return node.Alias
	}
	return node
}

func isNull(node *yaml.Node) bool {
	return node.Kind == yaml.ScalarNode && node.ShortTag() == "!!null"
}

// describe names what stands in the file.
func describe(node *yaml.Node) string {
	switch node.Kind {
	case yaml.SequenceNode:
		return "a list"
	case yaml.MappingNode:
		return "a map"
	default:
		return quote(node.Value)
	}
}
