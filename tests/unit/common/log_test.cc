// Lines as people and collectors read them, whatever is logged.
#include "common/log.h"

#include <catch2/catch.hpp>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <string>

#include "common/atomic_file.h"
#include "common/json.h"
#include "common/unique_fd.h"
#include "tests/unit/datapath/temporary_directory.h"

using namespace vdpa;

namespace {

// What is on standard error meanwhile. The tests' own log is as before afterwards.
std::string logged(const std::string& level, const std::string& format,
                   const std::function<void()>& write) {
  const TemporaryDirectory directory;
  const std::string path = directory.path() + "/log";
  {
    const UniqueFd before(::dup(STDERR_FILENO));
    const UniqueFd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    REQUIRE(::dup2(file.get(), STDERR_FILENO) == STDERR_FILENO);
    initLogging("vdpa-test", level, format);
    write();
    ::dup2(before.get(), STDERR_FILENO);
  }
  initLogging("", "info", "text");
  return readFile(path);
}

}  // namespace

TEST_CASE("a line of text has the time, the level and the program, and stays one line") {
  const std::string text =
      logged("debug", "text", [] { log::warn("{}\n{}\x7f", "one\ttwo", "three"); });
  CHECK_THAT(text,
             Catch::Matches(R"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} warning vdpa-test: .*\n)"));
  CHECK_THAT(text, Catch::EndsWith("vdpa-test: one\\x09two\\x0athree\\x7f\n"));
}

TEST_CASE("a line of JSON is an object") {
  const std::string text =
      logged("info", "json", [] { log::error("{} \"{}\" \xff", "a\nb", "c"); });
  REQUIRE(text.find('\n') == text.size() - 1);
  const auto json = parseJson(text);
  CHECK_THAT(json.at("time").get<std::string>(),
             Catch::Matches(R"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[-+]\d\d:\d\d)"));
  CHECK(json.at("level") == "error");
  CHECK(json.at("program") == "vdpa-test");
  CHECK(json.at("message") == "a\nb \"c\" \xef\xbf\xbd");
  CHECK(json.size() == 4);
}

TEST_CASE("what is below the level is not logged") {
  const auto all = [] {
    log::at(log::Level::trace, "a");
    log::debug("b");
    log::info("c");
    log::warn("d");
    log::error("e");
  };
  const auto lines = [&](const std::string& level) {
    const std::string text = logged(level, "text", all);
    return std::count(text.begin(), text.end(), '\n');
  };
  CHECK(lines("trace") == 5);
  CHECK(lines("debug") == 4);
  CHECK(lines("info") == 3);
  CHECK(lines("warning") == 2);
  CHECK(lines("warn") == 2);
  CHECK(lines("error") == 1);
  CHECK(lines("critical") == 0);
  CHECK(lines("off") == 0);
}

TEST_CASE("a level or a format that is none is refused") {
  CHECK_THROWS_WITH(initLogging("x", "loud", "text"),
                    "log level 'loud': expected trace, debug, info, warning, error or off");
  CHECK_THROWS_WITH(initLogging("x", "info", "xml"), "log format 'xml': expected text or json");
}
