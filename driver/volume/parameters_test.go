package volume

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestSpecSet(t *testing.T) {
	for _, c := range []struct {
		key, value string
		want       Spec
		fault      string
	}{
		{key: "provisioning", value: "thick", want: Spec{Thick: true}},
		{key: "provisioning", value: "thin"},
		{key: "provisioning", value: "", fault: "neither thick nor thin"},
		{key: "onDelete", value: "scrub", want: Spec{OnDelete: Scrub}},
		{key: "onDelete", value: "trash", fault: "freed at once"},
		{key: "onDelete", value: "burn", fault: "neither delete nor scrub"},
		{key: "mkfsOptions", value: "  -i 8192  ", want: Spec{MkfsOptions: []string{"-i", "8192"}}},
		{key: "mkfsOptions", value: "  "},
		{key: "mode", value: "0770", want: Spec{Root: Root{Mode: 0o770}}},
		{key: "mode", value: "770", want: Spec{Root: Root{Mode: 0o770}}},
		{key: "mode", value: "02775", want: Spec{Root: Root{Mode: 0o2775}}},
		{key: "mode", value: "1777", want: Spec{Root: Root{Mode: 0o1777}}},
		{key: "mode", value: "504", want: Spec{Root: Root{Mode: 0o504}}},
		{key: "mode", value: "4755", fault: "at most 3777"},
		{key: "mode", value: "0", fault: "octal"},
		{key: "mode", value: "0000", fault: "octal"},
		{key: "mode", value: "0o770", fault: "octal"},
		{key: "mode", value: "0780", fault: "octal"},
		{key: "mode", value: "-770", fault: "octal"},
		{key: "mode", value: "u=rwx", fault: "octal"},
		{key: "owner", value: "1000:2000", want: Spec{Root: Root{UID: 1000, GID: 2000}}},
		{key: "owner", value: "0:4294967294", want: Spec{Root: Root{GID: 4294967294}}},
		{key: "owner", value: "0:4294967295", fault: "uid:gid"},
		{key: "owner", value: "1000", fault: "uid:gid"},
		{key: "owner", value: "postgres:postgres", fault: "uid:gid"},
		{key: "owner", value: "-1:0", fault: "uid:gid"},
		{key: "owner", value: "1:2:3", fault: "uid:gid"},
	} {
		var got Spec
		known, err := got.Set(c.key, c.value)
		if !known {
			t.Errorf("%s is not known", c.key)
		}
		if c.fault != "" {
			if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), c.fault) || !strings.Contains(err.Error(), c.key) {
				t.Errorf("%s=%q: %v", c.key, c.value, err)
			}
			continue
		}
		if got.OnDelete == Delete {
			got.OnDelete = ""
		}
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s=%q: %+v, %v", c.key, c.value, got, err)
		}
	}
	if known, err := new(Spec).Set("pool", "a"); known || err != nil {
		t.Errorf("pool: known %v, %v", known, err)
	}
	for _, key := range SpecParams() {
		if known, _ := new(Spec).Set(key, ""); !known {
			t.Errorf("%s is listed and not known", key)
		}
	}
}

func TestAttributesWith(t *testing.T) {
	had := Attributes{Inodes: 5, SoftLimit: 80}
	for _, c := range []struct {
		params map[string]string
		want   Attributes
		fault  string
	}{
		{nil, had, ""},
		{map[string]string{"inodeLimit": "7"}, Attributes{7, 80}, ""},
		{map[string]string{"inodeLimit": "0", "softLimit": "0%"}, Attributes{}, ""},
		{map[string]string{"softLimit": "99%"}, Attributes{5, 99}, ""},
		{map[string]string{"softLimit": "100%"}, had, "0% to 99%"},
		{map[string]string{"softLimit": "80"}, had, "0% to 99%"},
		{map[string]string{"inodeLimit": "-1"}, had, "number of inodes"},
		{map[string]string{"iops": "5"}, had, "inodeLimit and softLimit"},
	} {
		got, err := had.With(c.params)
		if c.fault == "" && (err != nil || got != c.want) || c.fault != "" && (!errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), c.fault)) {
			t.Errorf("%v: %+v, %v", c.params, got, err)
		}
	}
	if keys := AttributeParams(); !slices.IsSorted(keys) {
		t.Errorf("%v", keys)
	}
}
