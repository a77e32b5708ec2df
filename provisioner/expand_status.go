package provisioner

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// resizeConditions are those that tell of an expansion; others are kept.
var resizeConditions = []corev1.PersistentVolumeClaimConditionType{
	corev1.PersistentVolumeClaimResizing,
	corev1.PersistentVolumeClaimFileSystemResizePending,
	corev1.PersistentVolumeClaimControllerResizeError,
	corev1.PersistentVolumeClaimNodeResizeError,
}

// claimStatus is what an expansion changes of a claim's status, as a merge
// patch: a status of nil takes the entry away.
type claimStatus struct {
	Capacity   map[corev1.ResourceName]resource.Quantity           `json:"capacity,omitempty"`
	Allocated  map[corev1.ResourceName]resource.Quantity           `json:"allocatedResources,omitempty"`
	Statuses   map[corev1.ResourceName]*corev1.ClaimResourceStatus `json:"allocatedResourceStatuses"`
	Conditions []corev1.PersistentVolumeClaimCondition             `json:"conditions"`
}

func storage[T any](value T) map[corev1.ResourceName]T {
	return map[corev1.ResourceName]T{corev1.ResourceStorage: value}
}

func inProgress(claim *corev1.PersistentVolumeClaim, size resource.Quantity) claimStatus {
	s := corev1.PersistentVolumeClaimControllerResizeInProgress
	return claimStatus{Allocated: storage(size), Statuses: storage(&s), Conditions: conditions(claim, corev1.PersistentVolumeClaimResizing, "")}
}

func infeasible(claim *corev1.PersistentVolumeClaim, size resource.Quantity, message string) claimStatus {
	s := corev1.PersistentVolumeClaimControllerResizeInfeasible
	return claimStatus{Allocated: storage(size), Statuses: storage(&s), Conditions: conditions(claim, corev1.PersistentVolumeClaimControllerResizeError, message)}
}

func finished(claim *corev1.PersistentVolumeClaim, size resource.Quantity) claimStatus {
	return claimStatus{
		Capacity: storage(size), Allocated: storage(size),
		Statuses: storage[*corev1.ClaimResourceStatus](nil), Conditions: conditions(claim, "", ""),
	}
}

// conditions are the claim's, with the one about its expansion that holds now.
func conditions(claim *corev1.PersistentVolumeClaim, now corev1.PersistentVolumeClaimConditionType, message string) []corev1.PersistentVolumeClaimCondition {
	out := []corev1.PersistentVolumeClaimCondition{}
	for _, c := range claim.Status.Conditions {
		if !slices.Contains(resizeConditions, c.Type) {
			out = append(out, c)
		}
	}
	if now != "" {
		out = append(out, corev1.PersistentVolumeClaimCondition{
			Type: now, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now(), Message: message,
		})
	}
	return out
}

// patchClaim changes the status of a claim as it was read, and no other.
func (x *expander) patchClaim(ctx context.Context, claim *corev1.PersistentVolumeClaim, s claimStatus) error {
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": claim.UID, "resourceVersion": claim.ResourceVersion},
		"status":   s,
	})
	if err == nil {
		_, err = x.client.CoreV1().PersistentVolumeClaims(claim.Namespace).Patch(ctx, claim.Name, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	}
	if err != nil {
		return fmt.Errorf("status of claim %s/%s: %w", claim.Namespace, claim.Name, err)
	}
	return nil
}

func (x *expander) patchVolume(ctx context.Context, pv *corev1.PersistentVolume, size resource.Quantity) error {
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": pv.UID},
		"spec":     map[string]any{"capacity": storage(size)},
	})
	if err == nil {
		_, err = x.client.CoreV1().PersistentVolumes().Patch(ctx, pv.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	}
	if err != nil {
		return fmt.Errorf("capacity of PersistentVolume %s: %w", pv.Name, err)
	}
	return nil
}
