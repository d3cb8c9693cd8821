// The files of a node, as seen from where this program runs: the node itself, or a container.
//
// The kernel's own files (/proc, /sys) show the node in either place. The node's other files are
// in a container only as far as they are mounted there; a privileged container with the host's
// processes sees all of them below /proc/1/root.
#pragma once

#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace vdpa::ctl {

enum class Place { node, container };

class Node {
 public:
  // `root` is before every path: empty on a running node. `hostRoot` is where a container sees the
  // node's files; empty: nowhere.
  Node(Place place, std::string root, std::string hostRoot = "")
      : place_(place), root_(std::move(root)), hostRoot_(std::move(hostRoot)) {}

  Place place() const { return place_; }
  // Whether every file of the node can be seen.
  bool seesAll() const { return place_ == Place::node || !hostRoot_.empty(); }

  // --- The kernel's files.
  std::string kernelPath(const std::string& path) const { return root_ + path; }
  // Without white space at its end; nothing if it is missing or can't be read.
  std::optional<std::string> read(const std::string& path) const;
  bool exists(const std::string& path) const;
  // Names in a directory, sorted; none if it is missing.
  std::vector<std::string> list(const std::string& path) const;
  // The last part of a link's target; empty if there is no such link.
  std::string linkName(const std::string& path) const;

  // --- The node's other files.
  // Where this program finds one; nothing if it can't be seen from here. It may be missing.
  std::optional<std::string> hostPath(const std::string& path) const;
  // The same for a path at which a container has a file system of its own.
  std::optional<std::string> hostOnlyPath(const std::string& path) const;

  // The lines "KEY: VALUE" of a process's status, by key; none if it has ended.
  std::map<std::string, std::string> statusOf(const std::string& pid) const;

  struct Process {
    std::string pid;
    std::string name;  // "vdpa-datapath"
  };
  // This project's processes that can be seen from here, by the names of their executables: what
  // a process calls itself is anybody's choice.
  std::vector<Process> processes() const;

 private:
  const Place place_;
  const std::string root_;
  const std::string hostRoot_;
};

// The names in a directory, sorted; none if it can't be read.
std::vector<std::string> namesIn(const std::string& directory);
// A whole file without white space at its end; nothing if it can't be read.
std::optional<std::string> readText(const std::string& path);

// A regular file of at most `most` bytes in a directory tree that somebody else made, such as a
// container's: its links lead nowhere else, and no pipe or device holds the reader up. Nothing if
// there is none.
std::optional<std::string> readBelow(const std::string& root, const std::string& path, size_t most);

// Where this program runs, and what it sees from there.
Node thisNode();

}  // namespace vdpa::ctl
