package kube

import (
	"context"
	"slices"
	"strings"
)

// Kind is a kind of object that the API server can list.
type Kind struct {
	Group    string // empty: the core group
	Version  string
	Resource string
}

// Path is where all objects of the kind are.
func (k Kind) Path() string {
	if k.Group == "" {
		return "/api/" + k.Version + "/" + k.Resource
	}
	return "/apis/" + k.Group + "/" + k.Version + "/" + k.Resource
}

// File is a file name for objects of the kind.
func (k Kind) File() string {
	if k.Group == "" {
		return k.Resource + ".yaml"
	}
	return k.Resource + "." + k.Group + ".yaml"
}

// Kinds lists all kinds that can be listed, each in its preferred version.
func Kinds(ctx context.Context, c *Client) ([]Kind, error) {
	var groups struct {
		Groups []struct {
			Name             string
			PreferredVersion struct{ Version string }
		}
	}
	if err := c.Get(ctx, "/apis", &groups); err != nil {
		return nil, err
	}
	all, err := kindsOf(ctx, c, "", "v1")
	if err != nil {
		return nil, err
	}
	for _, g := range groups.Groups {
		more, err := kindsOf(ctx, c, g.Name, g.PreferredVersion.Version)
		if err != nil {
			return nil, err
		}
		all = append(all, more...)
	}
	return all, nil
}

func kindsOf(ctx context.Context, c *Client, group, version string) ([]Kind, error) {
	path := strings.TrimSuffix(Kind{Group: group, Version: version}.Path(), "/")
	var resources struct {
		Resources []struct {
			Name  string
			Verbs []string
		}
	}
	if err := c.Get(ctx, path, &resources); err != nil {
		return nil, err
	}
	var kinds []Kind
	for _, r := range resources.Resources {
		if slices.Contains(r.Verbs, "list") && !strings.Contains(r.Name, "/") {
			kinds = append(kinds, Kind{Group: group, Version: version, Resource: r.Name})
		}
	}
	return kinds, nil
}
