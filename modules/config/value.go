package config

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// nouns name the types in messages.
var nouns = map[string]string{
	typeString:   "a string",
	typeBool:     "a boolean",
	typeInt:      "a whole number",
	typeDuration: "a duration",
	typeList:     "a list",
	typeMap:      "a map",
}

// Text writes a value of a key as a variable or a flag takes it: 66s, a,b and k=v,k=v.
func Text(value any) string {
	switch v := value.(type) {
	case time.Duration:
		return duration(v)
	case []string:
		return strings.Join(v, ",")
	case map[string]string:
		pairs := make([]string, 0, len(v))
		for _, name := range slices.Sorted(maps.Keys(v)) {
			pairs = append(pairs, name+"="+v[name])
		}
		return strings.Join(pairs, ",")
	default:
		return fmt.Sprint(v)
	}
}

// duration writes 66s, where String writes 1m6s, and 5m, where it writes 5m0s.
func duration(d time.Duration) string {
	if d.Abs() < 2*time.Minute && d%time.Second == 0 {
		return strconv.Itoa(int(d/time.Second)) + "s"
	}
	text := d.String()
	if d%time.Minute == 0 {
		text = strings.TrimSuffix(text, "0s")
	}
	if d%time.Hour == 0 {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// parse reads a value as a variable or a flag gives it. With an error there is none, but
// of a list or a map: that has the items that are right, and the error joins those that are not.
func (k Key) parse(text string) (any, error) {
	switch k.Type {
	case typeBool:
		if on, err := strconv.ParseBool(text); err == nil {
			return on, nil
		}
	case typeInt:
		// Only one spelling: 010 is ten to some and eight to others.
		if n, err := strconv.Atoi(text); err == nil && strconv.Itoa(n) == text {
			return n, nil
		}
	case typeDuration:
		if isNumber(text) {
			return nil, fmt.Errorf("%s has no unit; write e.g. %ss", quote(text), text)
		}
		if d, err := time.ParseDuration(text); err == nil {
			return d, nil
		}
	case typeList:
		return parseList(text)
	case typeMap:
		return parseMap(text)
	default:
		return text, nil
	}
	return nil, k.wrong(quote(text))
}

// wrong is the error of a value that is not of the key's type.
func (k Key) wrong(given string) error {
	return fmt.Errorf("%s is not %s; write %s", given, nouns[k.Type], k.example())
}

// example is one value that is allowed, in YAML; the default where it shows something.
func (k Key) example() string {
	text := Text(k.Default)
	switch {
	case k.Type == typeBool:
		return "true or false"
	case k.Type == typeList:
		return "e.g. [a, b]"
	case k.Type == typeMap:
		return "e.g. {name: value}"
	case text != "" && text != "0" && text != "0s":
	case k.Type == typeInt:
		text = "10"
	case k.Type == typeDuration:
		text = "10s"
	default:
		text = "text"
	}
	return "e.g. " + text
}

// isNumber reports a number that lacks a unit, 0 too: to write 0s costs nothing.
func isNumber(text string) bool {
	_, err := strconv.ParseFloat(text, 64)
	return err == nil && strings.Trim(text, "+-.0123456789") == ""
}

// parseList returns the items that there are, and an error if some are empty.
func parseList(text string) ([]string, error) {
	items := []string{}
	if text == "" {
		return items, nil
	}
	var err error
	for item := range strings.SplitSeq(text, ",") {
		if item = strings.TrimSpace(item); item == "" {
			err = fmt.Errorf("%s has an empty item; write e.g. a,b", quote(text))
			continue
		}
		items = append(items, item)
	}
	return items, err
}

// parseMap returns the pairs that there are, and all that is wrong beside them, joined.
func parseMap(text string) (map[string]string, error) {
	var errs []error
	items, err := parseList(text)
	if err != nil {
		errs = append(errs, fmt.Errorf("%s has an empty item; write e.g. name=value,name=value", quote(text)))
	}
	pairs := make(map[string]string, len(items))
	for _, item := range items {
		name, value, ok := strings.Cut(item, "=")
		_, twice := pairs[name]
		switch {
		case !ok || name == "":
			errs = append(errs, fmt.Errorf("%s is not name=value; write e.g. name=value,name=value", quote(item)))
		case twice:
			errs = append(errs, fmt.Errorf("%s is given twice; remove one", quote(name)))
		default:
			pairs[name] = value
		}
	}
	return pairs, errors.Join(errs...)
}

// unjoin returns the errors that err joins, or err alone.
func unjoin(err error) []error {
	switch joined, ok := err.(interface{ Unwrap() []error }); {
	case err == nil:
		return nil
	case ok:
		return joined.Unwrap()
	}
	return []error{err}
}
