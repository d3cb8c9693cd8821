// A hanging IPAM plugin is killed promptly, with all the processes it has started.
#include "cni/ipam.h"

#include <catch2/catch.hpp>
#include <signal.h>
#include <sys/stat.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

#include "common/atomic_file.h"
#include "tests/unit/cni/errors.h"

using namespace vdpa::cni;
using namespace std::chrono_literals;

namespace {

class Plugin {
 public:
  explicit Plugin(const std::string& body) {
    char path[] = "/tmp/vdpa-ipam-XXXXXX";
    directory_ = ::mkdtemp(path);
    vdpa::writeFileAtomically(directory_ + "/plugin", "#!/bin/sh\n" + body,
                              vdpa::Durability::memory, 0755);
  }
  ~Plugin() { std::filesystem::remove_all(directory_); }

  std::string path(const std::string& file) const { return directory_ + "/" + file; }
  Ipam ipam(const std::string& config = "{}") const {
    return Ipam("plugin", {"/nonexistent", directory_}, config);
  }

 private:
  std::string directory_;
};

bool isGone(pid_t pid) {
  // Init reaps a killed orphan, so a zombie counts as gone.
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string text;
  std::getline(file, text);
  return text.empty() || text.find(") Z ") != std::string::npos;
}

}  // namespace

TEST_CASE("a plugin over its deadline is killed with its children") {
  // The child reports its pid before the plugin hangs; it keeps the output open, or not.
  const std::string hang =
      GENERATE("sleep 1000 & echo $! > $0.pid; wait",
               "sleep 1000 > /dev/null & echo $! > $0.pid; exec > /dev/null; wait",
               "sleep 1000 & echo $! > $0.pid; exit 0",
               "trap '' TERM INT; sleep 1000 & echo $! > $0.pid; cat > /dev/null; wait");
  CAPTURE(hang);
  const Plugin plugin(hang);
  const auto begin = std::chrono::steady_clock::now();
  CHECK(errorOf([&] { plugin.ipam().run("ADD", 500ms); }) ==
        "11: IPAM plugin 'plugin' did not exit in time and was killed");
  CHECK(std::chrono::steady_clock::now() - begin < 10s);
  pid_t child = 0;
  std::ifstream(plugin.path("plugin.pid")) >> child;
  REQUIRE(child > 0);
  for (int i = 0; i < 1000 && !isGone(child); ++i) std::this_thread::sleep_for(10ms);
  CHECK(isGone(child));
}

TEST_CASE("a plugin that neither reads nor ends") {
  const Plugin plugin("sleep 1000");
  CHECK(errorOf([&] { plugin.ipam(std::string(1 << 20, ' ')).run("ADD", 300ms); }).substr(0, 3) ==
        "11:");
}

TEST_CASE("answers") {
  CHECK(Plugin("cat").ipam(R"({"a": 1})").run("ADD", 10s) == nlohmann::json{{"a", 1}});
  CHECK(Plugin("true").ipam().run("DEL", 10s).is_null());
  CHECK(Plugin("echo \"{\\\"command\\\": \\\"$CNI_COMMAND\\\"}\"").ipam().run("CHECK", 10s) ==
        nlohmann::json{{"command", "CHECK"}});
  const std::string large(1 << 20, ' ');
  CHECK(Plugin("echo '{}'; exec > /dev/null; cat > $0.input").ipam(large).run("ADD", 10s).empty());
  CHECK(errorOf([] { Plugin("exit 4").ipam().run("ADD", 10s); }) ==
        "102: IPAM plugin 'plugin' exited with status 4");
}

TEST_CASE("plugins that are not there") {
  const Plugin plugin("true");
  CHECK(plugin.ipam().installed());
  const Ipam missing("other", {"/nonexistent"}, "{}");
  CHECK_FALSE(missing.installed());
  CHECK(errorOf([&] { missing.run("ADD"); }) ==
        "7: IPAM plugin 'other' is not in CNI_PATH (/nonexistent); install it on this node");
  CHECK_FALSE(Ipam("/plugin", {}, "{}").installed());
}
