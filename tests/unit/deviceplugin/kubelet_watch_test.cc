// A kubelet's files in every state in which the plugin may find them.
#include "deviceplugin/kubelet/kubelet_watch.h"

#include <catch2/catch.hpp>

#include <filesystem>
#include <fstream>
#include <set>
#include <string>

#include "common/event_loop.h"
#include "deviceplugin/events/inotify.h"
#include "tests/unit/datapath/temporary_directory.h"

using namespace vdpa;
using namespace vdpa::plugin;
using namespace std::chrono_literals;

TEST_CASE("a kubelet's end that is read after the next one's start is none") {
  const TemporaryDirectory directory;
  const std::string kubelet = directory.path() + "/kubelet.sock";
  EventLoop loop;
  EventLoop::Timer enough(loop, [&] { loop.stop(); });
  Inotify inotify(loop);
  std::set<std::string> seen;
  const KubeletWatch watch(inotify, directory.path(),
                           {.appeared = [&] { seen.insert("appeared"); },
                            .vanished = [&] { seen.insert("vanished"); },
                            .removed = [&](const std::string& name) { seen.insert(name); }});
  std::ofstream(kubelet) << "";
  std::ofstream(directory.path() + "/plugin.sock") << "";
  const auto look = [&] {
    seen.clear();
    enough.start(20ms);
    loop.run();
  };
  SECTION("the next one is there") {
    std::filesystem::remove(directory.path() + "/plugin.sock");
    std::filesystem::remove(kubelet);
    std::ofstream(kubelet) << "";
    look();
    CHECK(seen == std::set<std::string>{"appeared", "plugin.sock"});
  }
  SECTION("none is there") {
    std::filesystem::remove(kubelet);
    look();
    CHECK(seen == std::set<std::string>{"vanished"});
  }
}
