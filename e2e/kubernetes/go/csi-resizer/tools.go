//go:build tools

// Package tools pins the external-resizer of Kubernetes' storage group, which has the test bed's CSI driver grow volumes.
package tools

import (
	_ "github.com/kubernetes-csi/external-resizer/v2/cmd/csi-resizer"
)
