//go:build tools

// Package tools pins the external-provisioner of Kubernetes' storage group, which has the test bed's CSI driver make volumes.
package tools

import (
	_ "github.com/kubernetes-csi/external-provisioner/v6/cmd/csi-provisioner"
)
