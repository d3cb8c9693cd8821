// vdpa: the CNI plugin. Runs, asks vdpa-datapath, prints, exits.
#include <fmt/core.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <string>

#include "cni/commands.h"
#include "cni/environment.h"
#include "cni/error.h"
#include "cni/network_config.h"
#include "common/json.h"
#include "common/version.h"

namespace {

constexpr size_t kMaxConfig = 1 << 20;  // bytes

constexpr const char* kUsage =
    "vdpa {} is a CNI plugin: a container runtime runs it with CNI_COMMAND set and a network "
    "configuration on standard\n"
    "input. It speaks CNI 0.3.0 to 1.1.0 and needs vdpa-datapath on the same node.\n\n"
    "Options:\n"
    "  --help     print this text\n"
    "  --version  print the version\n";

// Appends standard input to `config`; the part before a read error stays.
void readConfig(std::string& text) {
  char buffer[16384];
  for (;;) {
    const ssize_t count = ::read(STDIN_FILENO, buffer, sizeof buffer);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0)
      throw vdpa::cni::Error(vdpa::cni::Code::ioFailure, "cannot read the network configuration",
                             std::strerror(errno));
    if (count == 0) return;
    text.append(buffer, static_cast<size_t>(count));
    if (text.size() > kMaxConfig)
      throw vdpa::cni::Error(
          vdpa::cni::Code::decodingFailure,
          fmt::format("the network configuration is larger than {} bytes", kMaxConfig));
  }
}

int printError(const std::string& config, int code, const std::string& message,
               const std::string& details) {
  nlohmann::json answer{
      {"cniVersion", vdpa::cni::answerVersion(config)}, {"code", code}, {"msg", message}};
  if (!details.empty()) answer["details"] = details;
  fmt::print("{}\n", vdpa::anyJsonText(answer, 2));
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  using namespace vdpa::cni;
  if (argc > 1 || (!std::getenv("CNI_COMMAND") && ::isatty(STDIN_FILENO))) {
    if (argc > 1 && std::strcmp(argv[1], "--version") == 0)
      fmt::print("{}\n", vdpa::programVersion());
    else
      fmt::print(kUsage, vdpa::programVersion());
    return 0;
  }
  std::string config;
  try {
    readConfig(config);  // first, as errors are printed in the configuration's version
    const Environment environment =
        readEnvironment([](const char* name) -> const char* { return std::getenv(name); });
    const std::string answer = execute(environment, config);
    if (!answer.empty()) fmt::print("{}\n", answer);
    return 0;
  } catch (const Error& error) {
    return printError(config, error.code(), error.what(), error.details());
  } catch (const std::exception& error) {
    return printError(config, static_cast<int>(Code::ioFailure), error.what(), "");
  }
}
