package bus

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// savedRules are rules in a file.
type savedRules struct {
	Rules []savedRule `json:"rules"`
}

type savedRule struct {
	Revision uint64          `json:"revision"`
	Name     string          `json:"name"`
	Rule     json.RawMessage `json:"rule"`
}

// SaveRules keeps rules in a file, for the time when NATS cannot be asked. What
// could not be read is left out. The file is whole at any time, even after a
// power failure.
func SaveRules(path string, rules []StoredRule) error {
	var saved savedRules
	for _, r := range rules {
		if r.Err != nil {
			continue
		}
		value, err := json.Marshal(r.Rule)
		if err != nil {
			return fmt.Errorf("save rules: %s: %w", r.Name, err)
		}
		saved.Rules = append(saved.Rules, savedRule{r.Revision, r.Name, value})
	}
	text, err := json.Marshal(saved)
	if err != nil {
		return fmt.Errorf("save rules: %w", err)
	}
	if err := replaceFile(path, append(text, '\n')); err != nil {
		return fmt.Errorf("save rules: %w", err)
	}
	return nil
}

// LoadRules reads what [SaveRules] wrote. Without a file there are none.
func LoadRules(path string) ([]StoredRule, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("load rules: %w", err)
	}
	var saved savedRules
	if err := json.Unmarshal(text, &saved); err != nil {
		return nil, fmt.Errorf("load rules: %s: %w", path, err)
	}
	var rules []StoredRule
	for _, r := range saved.Rules {
		rules = append(rules, decodeRule(r.Name, r.Rule, r.Revision))
	}
	return rules, nil
}

// replaceFile puts text in place of a file. At any time the file is either what
// it was or what it is to be.
func replaceFile(path string, text []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
