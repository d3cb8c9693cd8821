// Prints the node labels that Node Feature Discovery's worker makes of the feature files in
// /etc/kubernetes/node-feature-discovery/features.d, by its own code: KEY=VALUE lines, sorted.
package main

import (
	"fmt"
	"os"
	"sort"

	_ "sigs.k8s.io/node-feature-discovery/api/nfd/v1alpha1"
	"sigs.k8s.io/node-feature-discovery/source"
	"sigs.k8s.io/node-feature-discovery/source/local"
)

func main() {
	if err := source.GetFeatureSource(local.Name).Discover(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	labels, err := source.GetLabelSource(local.Name).GetLabels()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	var lines []string
	for key, value := range labels {
		lines = append(lines, fmt.Sprintf("%s=%v", key, value))
	}
	sort.Strings(lines)
	for _, line := range lines {
		fmt.Println(line)
	}
}
