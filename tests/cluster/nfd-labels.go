// Prints the node labels that Node Feature Discovery makes, by its own code, as sorted KEY=VALUE lines: without an argument
// those that its worker makes of the feature files in /etc/kubernetes/node-feature-discovery/features.d; with the file of a
// NodeFeatureRule those that its master makes by that rule, of the features on the standard input, in JSON.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"sort"

	"sigs.k8s.io/node-feature-discovery/api/nfd/v1alpha1"
	"sigs.k8s.io/node-feature-discovery/pkg/apis/nfd/nodefeaturerule"
	"sigs.k8s.io/node-feature-discovery/source"
	"sigs.k8s.io/node-feature-discovery/source/local"
	"sigs.k8s.io/yaml"
)

func ofFiles() (map[string]string, error) {
	if err := source.GetFeatureSource(local.Name).Discover(); err != nil {
		return nil, err
	}
	found, err := source.GetLabelSource(local.Name).GetLabels()
	labels := map[string]string{}
	for key, value := range found {
		labels[key] = fmt.Sprintf("%v", value)
	}
	return labels, err
}

func byRule(file string) (map[string]string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var rule v1alpha1.NodeFeatureRule
	if err := yaml.UnmarshalStrict(text, &rule); err != nil {
		return nil, err
	}
	features := v1alpha1.NewFeatures()
	if err := json.NewDecoder(os.Stdin).Decode(features); err != nil {
		return nil, err
	}
	labels := map[string]string{}
	for _, one := range rule.Spec.Rules {
		output, err := nodefeaturerule.Execute(&one, features, true)
		if err != nil {
			return nil, err
		}
		for key, value := range output.Labels {
			labels[key] = value
		}
	}
	return labels, nil
}

func main() {
	labels, err := map[string]string{}, error(nil)
	if len(os.Args) > 1 {
		labels, err = byRule(os.Args[1])
	} else {
		labels, err = ofFiles()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	var lines []string
	for key, value := range labels {
		lines = append(lines, key+"="+value)
	}
	sort.Strings(lines)
	for _, line := range lines {
		fmt.Println(line)
	}
}
