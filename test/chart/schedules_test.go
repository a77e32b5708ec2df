//go:build helm

package chart

import (
	"slices"
	"strings"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
)

// schedules are values with one of each kind.
const schedules = `
snapshots: {enabled: true}
image: {tag: dev}
snapshotSchedules:
- {name: hourly, cron: "0 * * * *", namespaces: [shop, web], keep: 24, keepFor: 7d, snapshotClass: fast, timeZone: Europe/Vienna, timeout: 1h30m, suspend: true,
   selector: {matchLabels: {app: db, tier: a}, matchExpressions: [{key: kind, operator: NotIn, values: [x, z]}, {key: skip, operator: DoesNotExist}, {key: in, operator: Exists}, {key: of, operator: In, values: [z]}]}}
- {name: daily, cron: "@daily", allNamespaces: true, keep: 3, selector: {matchExpressions: [{key: backup, operator: Exists}]}}
`

func scheduled(t *testing.T, name string) batchv1.CronJob {
	t.Helper()
	for _, c := range all[batchv1.CronJob](t, schedules, "CronJob") {
		if c.Name == "plinth-snapshots-"+name {
			return c
		}
	}
	t.Fatalf("there is no CronJob of schedule %s", name)
	return batchv1.CronJob{}
}

func TestSnapshotSchedules(t *testing.T) {
	if n := len(all[batchv1.CronJob](t, ``, "CronJob")); n != 0 {
		t.Errorf("%d CronJobs by default", n)
	}
	for name, want := range map[string]struct {
		seconds int64
		args    []string
	}{
		"hourly": {3*5400 + 600, []string{"snapshot", "--schedule=hourly", "--job=$(POD_NAMESPACE)/$(JOB_NAME)", "--driver-name=csi.plinth.dev", "--namespace=shop,web",
			"--selector=app=db,tier=a,kind notin (x,z),!skip,in,of in (z)", "--snapshot-class=fast", "--keep=24", "--keep-for=7d", "--timeout=1h30m"}},
		"daily": {3*600 + 600, []string{"snapshot", "--schedule=daily", "--job=$(POD_NAMESPACE)/$(JOB_NAME)", "--driver-name=csi.plinth.dev", "--all-namespaces",
			"--selector=backup", "--keep=3", "--timeout=10m"}},
	} {
		c := scheduled(t, name)
		job := c.Spec.JobTemplate.Spec
		if got := job.Template.Spec.Containers[0].Args; !slices.Equal(got, want.args) {
			t.Errorf("%s runs %q, want %q", name, got, want.args)
		}
		if c.Spec.ConcurrencyPolicy != batchv1.ForbidConcurrent || *c.Spec.SuccessfulJobsHistoryLimit != 1 || *c.Spec.FailedJobsHistoryLimit != 3 ||
			*c.Spec.StartingDeadlineSeconds != 3600 || *job.ActiveDeadlineSeconds != want.seconds || *job.BackoffLimit != 2 {
			t.Errorf("%s: %+v", name, c.Spec)
		}
	}
	if c := scheduled(t, "hourly"); c.Spec.Schedule != "0 * * * *" || *c.Spec.TimeZone != "Europe/Vienna" || !*c.Spec.Suspend {
		t.Errorf("%+v", c.Spec)
	}
	if c := scheduled(t, "daily"); c.Spec.Schedule != "@daily" || c.Spec.TimeZone != nil || *c.Spec.Suspend {
		t.Errorf("%+v", c.Spec)
	}
}

// TestSnapshotSchedulePods: what Pod Security calls restricted, and the image of
// the product.
func TestSnapshotSchedulePods(t *testing.T) {
	pod := scheduled(t, "hourly").Spec.JobTemplate.Spec.Template.Spec
	c := pod.Containers[0]
	if !*pod.SecurityContext.RunAsNonRoot || pod.SecurityContext.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault ||
		*c.SecurityContext.AllowPrivilegeEscalation || !*c.SecurityContext.ReadOnlyRootFilesystem || !slices.Equal(c.SecurityContext.Capabilities.Drop, []corev1.Capability{"ALL"}) ||
		len(pod.Volumes) != 0 {
		t.Errorf("%+v", pod)
	}
	if c.Image != "plinth:dev" || len(pod.Containers) != 1 {
		t.Errorf("it runs %s", c.Image)
	}
}

// TestSnapshotScheduleRights: in its namespaces and nowhere else, unless it is
// for all of them; and no more than it needs.
func TestSnapshotScheduleRights(t *testing.T) {
	of := func(namespace, name string) []rbacv1.PolicyRule {
		var rules []rbacv1.PolicyRule
		for _, kind := range []string{"Role", "ClusterRole"} {
			for _, r := range all[rbacv1.ClusterRole](t, schedules, kind) {
				if r.Namespace == namespace && strings.HasPrefix(r.Name, "plinth-snapshots-"+name) {
					rules = append(rules, r.Rules...)
				}
			}
		}
		return rules
	}
	for _, c := range []struct {
		namespace, name string
		want            []string
	}{
		{"shop", "hourly", []string{"persistentvolumeclaims list", "volumesnapshots get,list,watch,create,delete"}},
		{"web", "hourly", []string{"persistentvolumeclaims list", "volumesnapshots get,list,watch,create,delete"}},
		{"ns", "hourly", []string{"jobs get"}},
		{"", "hourly", nil},
		{"", "daily", []string{"persistentvolumeclaims list", "volumesnapshots get,list,watch,create,delete"}},
		{"ns", "daily", []string{"jobs get"}},
	} {
		var got []string
		for _, r := range of(c.namespace, c.name) {
			got = append(got, strings.Join(r.Resources, ",")+" "+strings.Join(r.Verbs, ","))
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("schedule %s may %q in namespace %q, want %q", c.name, got, c.namespace, c.want)
		}
	}
	for _, kind := range []string{"RoleBinding", "ClusterRoleBinding"} {
		for _, b := range all[rbacv1.ClusterRoleBinding](t, schedules, kind) {
			if strings.HasPrefix(b.Name, "plinth-snapshots-") && (len(b.Subjects) != 1 || b.Subjects[0].Name != strings.TrimSuffix(b.Name, "-job") || b.Subjects[0].Namespace != "ns" || b.RoleRef.Name != b.Name) {
				t.Errorf("%s: %+v", b.Name, b)
			}
		}
	}
	for _, a := range all[corev1.ServiceAccount](t, schedules, "ServiceAccount") {
		if strings.HasPrefix(a.Name, "plinth-snapshots-") && *a.AutomountServiceAccountToken {
			t.Errorf("%s gives its token to any pod", a.Name)
		}
	}
}

func TestSnapshotSchedulesRefused(t *testing.T) {
	const good = `name: a, cron: "0 * * * *", namespaces: [shop], selector: {matchLabels: {app: db}}, keep: 1`
	for _, c := range []struct{ name, schedule, words string }{
		{"no cron", `name: a, namespaces: [shop], selector: {matchLabels: {app: db}}, keep: 1`, "it has 1 fields and not five"},
		{"no selector", `name: a, cron: "0 * * * *", namespaces: [shop], keep: 1`, "which claims are meant"},
		{"an empty selector", `name: a, cron: "0 * * * *", namespaces: [shop], keep: 1, selector: {matchLabels: {}}`, "which claims are meant"},
		{"no namespaces", `name: a, cron: "0 * * * *", selector: {matchLabels: {app: db}}, keep: 1`, "in which namespaces the claims are"},
		{"both", good + `, allNamespaces: true`, "say one of them"},
		{"no keep", `name: a, cron: "0 * * * *", namespaces: [shop], selector: {matchLabels: {app: db}}`, "how many snapshots of a claim stay"},
		{"keep below one", strings.Replace(good, "keep: 1", "keep: 0", 1), "at least 1"},
		{"a time that is none", good + `, keepFor: 7w`, "/snapshotSchedules/0/keepFor"},
		{"an unknown key", good + `, retention: 7d`, "'retention' not allowed"},
		{"an operator without values", strings.Replace(good, "matchLabels: {app: db}", "matchExpressions: [{key: app, operator: In}]", 1), "/snapshotSchedules/0/selector"},
		{"a label that breaks out", strings.Replace(good, "app: db", `app: "db,x"`, 1), "/snapshotSchedules/0/selector"},
		{"twice", good + "}\n- {" + good, `two schedules are called "a"`},
		{"a long name", strings.Replace(good, "name: a", "name: "+strings.Repeat("a", 40), 1), "shorten the name by 5"},
	} {
		out, err := render(t, "snapshots: {enabled: true}\nsnapshotSchedules:\n- {"+c.schedule+"}\n")
		if err == nil || !strings.Contains(out, c.words) {
			t.Errorf("%s: it is not refused with %q: %v\n%.500s", c.name, c.words, err, out)
		}
	}
	out, err := render(t, "snapshotSchedules:\n- {"+good+"}\n")
	if err == nil || !strings.Contains(out, "needs snapshots.enabled") {
		t.Errorf("without the csi-snapshotter: %v\n%.500s", err, out)
	}
	for cron, words := range map[string]string{
		"60 * * * *":         `"60" is no minute`,
		"0 24 * * *":         `"24" is no hour`,
		"0 0 0 * *":          `"0" is no day of the month`,
		"0 0 1 13 *":         `"13" is no month`,
		"0 0 * * 7":          `"7" is no day of the week`,
		"0 0 * * FUN":        `"FUN" is no day of the week`,
		"0 0 * *":            "it has 4 fields and not five",
		"0 0 0 * * *":        "it has 6 fields and not five",
		"*/0 * * * *":        `"*/0" is no minute`,
		"1,,2 * * * *":       `"" is no minute`,
		"hourly":             "it has 1 fields and not five",
		"@fortnightly":       "it is none of @hourly",
		"*/5 0-6,20 1 */2 ?": "",
		"0 3 * JAN-mar Mon":  "",
		"5/15 * * * 0-6/2":   "",
		"@every 6h30m":       "",
	} {
		out, err := render(t, "snapshots: {enabled: true}\nsnapshotSchedules:\n- {"+strings.Replace(good, "0 * * * *", cron, 1)+"}\n")
		if (err == nil) != (words == "") || (err != nil && !strings.Contains(strings.ReplaceAll(out, `\"`, `"`), words)) {
			t.Errorf("cron %q: %v, want %q\n%.500s", cron, err, words, out)
		}
	}
}
