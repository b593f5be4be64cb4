package config

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// columns is where a document's comments wrap.
const columns = 104

// Document is a file of the configuration that is to be written. Load reads back what
// String writes.
type Document struct {
	// Comment stands at the top; its paragraphs are wrapped.
	Comment string
	Parts   []Part
}

// Part is a section of a Document.
type Part struct {
	Section, Comment string
	Lines            []Line
}

// Line is a key of a Document.
type Line struct {
	Key   Key
	Value any
	// Comment stands above it and is wrapped, Note behind it.
	Comment, Note string
	// Aside has the line commented out.
	Aside bool
}

// String writes the document in YAML.
func (d Document) String() string {
	var b strings.Builder
	width := d.width()
	comment(&b, "", d.Comment)
	for i, part := range d.Parts {
		if d.commented() && (i > 0 || d.Comment != "") {
			b.WriteByte('\n')
		}
		comment(&b, "", part.Comment)
		fmt.Fprintf(&b, "%s:\n", part.Section)
		for j, line := range part.Lines {
			if line.Comment != "" && j > 0 && part.Lines[j-1].Aside {
				b.WriteByte('\n') // else the next comment seems to go on from the line before
			}
			comment(&b, "  ", line.Comment)
			text := line.bare()
			if line.Note != "" {
				text = fmt.Sprintf("%-*s  # %s", width, text, line.Note)
			}
			b.WriteString(text + "\n")
		}
	}
	return b.String()
}

// width is that of the column before the notes; longer lines stick out.
func (d Document) width() int {
	const most = 40
	width := 0
	for _, part := range d.Parts {
		for _, line := range part.Lines {
			if n := utf8.RuneCountInString(line.bare()); n <= most {
				width = max(width, n)
			}
		}
	}
	return width
}

// commented reports whether there is more than keys and values, and so a need for room.
func (d Document) commented() bool {
	return slices.ContainsFunc(d.Parts, func(p Part) bool {
		return p.Comment != "" || slices.ContainsFunc(p.Lines, func(l Line) bool { return l.Comment != "" })
	})
}

func (l Line) bare() string {
	mark := ""
	if l.Aside {
		mark = "#"
	}
	return "  " + mark + l.Key.leaf() + ": " + yamlText(l.Value)
}

// yamlText writes a value of a key on one line, in YAML.
func yamlText(value any) string {
	switch v := value.(type) {
	case []string:
		items := make([]string, len(v))
		for i, item := range v {
			items[i] = yamlString(item)
		}
		return "[" + strings.Join(items, ", ") + "]"
	case map[string]string:
		pairs := make([]string, 0, len(v))
		for _, name := range slices.Sorted(maps.Keys(v)) {
			pairs = append(pairs, yamlString(name)+": "+yamlString(v[name]))
		}
		return "{" + strings.Join(pairs, ", ") + "}"
	case string:
		return yamlString(v)
	default:
		return Text(value)
	}
}

// yamlString writes a string, in quotes where it would be taken for something else
// without them. The library quotes more than it must: all of IPv6.
func yamlString(text string) string {
	special := strings.ContainsFunc(text, func(r rune) bool { return isControl(r) || r == '\uFEFF' })
	var plain struct{ Bare, Item yaml.Node }
	if !special && yaml.Unmarshal([]byte("bare: "+text+"\nitem: {"+text+": "+text+"}"), &plain) == nil && plain.Item.Kind == yaml.MappingNode {
		is := func(n *yaml.Node) bool {
			return n.Kind == yaml.ScalarNode && n.Style == 0 && n.ShortTag() == "!!str" && n.Value == text
		}
		if pair := plain.Item.Content; is(&plain.Bare) && len(pair) == 2 && is(pair[0]) && is(pair[1]) {
			return text
		}
	}
	node := yaml.Node{Kind: yaml.ScalarNode, Style: yaml.SingleQuotedStyle, Value: strings.ToValidUTF8(text, "\uFFFD")}
	if special {
		node.Style = yaml.DoubleQuotedStyle
	}
	quoted, err := yaml.Marshal(&node)
	if err != nil {
		panic(fmt.Sprintf("config: %q cannot be written: %v", text, err)) // any text can
	}
	return strings.TrimSuffix(string(quoted), "\n")
}

// comment writes text as comments, wrapped but for what stands in backquotes; an empty
// line parts paragraphs, and one that begins with a space stays as it is.
func comment(b *strings.Builder, indent, text string) {
	for i, paragraph := range strings.Split(text, "\n\n") {
		if i > 0 {
			b.WriteString(indent + "#\n")
		}
		if strings.HasPrefix(paragraph, " ") {
			for line := range strings.SplitSeq(paragraph, "\n") {
				b.WriteString(indent + "#" + line + "\n")
			}
			continue
		}
		line := indent + "#"
		for _, word := range unbroken.FindAllString(paragraph, -1) {
			if utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > columns {
				b.WriteString(line + "\n")
				line = indent + "#"
			}
			line += " " + word
		}
		if line != indent+"#" {
			b.WriteString(line + "\n")
		}
	}
}

// unbroken is a word, with what stands in backquotes counting as one.
var unbroken = regexp.MustCompile("(?:`[^`]*`|[^\\s`]|`)+")
