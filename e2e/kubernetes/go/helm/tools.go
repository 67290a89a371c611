//go:build tools

// Package tools pins Helm, which installs the operator's chart on the test bed.
package tools

import (
	_ "helm.sh/helm/v4/cmd/helm"
)
