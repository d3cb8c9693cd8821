// Inside a guest: TCP and UDP whose contents are checked, and the settings that ethtool -K and -L
// make. One line says the result; the exit status is 0 if it is good.
//
//   tcp-receive PORT              accepts one connection, and checks all bytes
//   tcp-send ADDRESS PORT BYTES   sends them, and waits until the other side has checked them
//   udp-echo PORT                 sends each datagram back, for ever
//   udp-ask ADDRESS PORT COUNT BYTES   sends datagrams one by one; each must come back. Of three
//   tries at least one offload DEVICE NAME on|off    rx, tx, tso, gso or gro channels DEVICE COUNT
#include <arpa/inet.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace {

using Words = std::vector<std::string>;

[[noreturn]] void fail(const std::string& what) {
  throw std::runtime_error(what + ": " + std::strerror(errno));
}

// Of the byte at this place in a stream. Its period is a prime number, no frame's length.
uint8_t pattern(uint64_t at) {
  return static_cast<uint8_t>(at % 65521 * 2654435761U >> 13);
}

int openSocket(int type) {
  const int fd = ::socket(AF_INET, type, 0);
  if (fd < 0) fail("socket");
  const int on = 1;
  ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  const timeval patience{20, 0};
  ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  ::setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  return fd;
}

sockaddr_in addressOf(const char* host, const std::string& port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(std::stoul(port)));
  if (::inet_pton(AF_INET, host, &address.sin_addr) != 1) throw std::runtime_error("no address");
  return address;
}

int bound(int type, const std::string& port) {
  const int fd = openSocket(type);
  const sockaddr_in address = addressOf("0.0.0.0", port);
  if (::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) fail("bind");
  return fd;
}

int connected(int type, const std::string& host, const std::string& port) {
  const int fd = openSocket(type);
  const sockaddr_in address = addressOf(host.c_str(), port);
  if (::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    fail("connect");
  return fd;
}

void tcpReceive(const Words& words) {
  const int listener = bound(SOCK_STREAM, words.at(0));
  if (::listen(listener, 1) != 0) fail("listen");
  std::puts("listening");
  std::fflush(stdout);
  const int fd = ::accept(listener, nullptr, nullptr);
  if (fd < 0) fail("accept");
  std::vector<uint8_t> buffer(1 << 16);
  uint64_t total = 0;
  for (;;) {
    const ssize_t got = ::recv(fd, buffer.data(), buffer.size(), 0);
    if (got < 0) fail("recv after " + std::to_string(total) + " bytes");
    if (got == 0) break;
    for (ssize_t i = 0; i < got; ++i, ++total)
      if (buffer[static_cast<size_t>(i)] != pattern(total))
        throw std::runtime_error("byte " + std::to_string(total) + " is wrong");
  }
  ::send(fd, "good", 4, 0);
  std::printf("received %llu bytes\n", static_cast<unsigned long long>(total));
}

void tcpSend(const Words& words) {
  const int fd = connected(SOCK_STREAM, words.at(0), words.at(1));
  const uint64_t size = std::stoull(words.at(2));
  std::vector<uint8_t> buffer(1 << 16);
  for (uint64_t sent = 0; sent < size;) {
    const size_t count = static_cast<size_t>(std::min<uint64_t>(buffer.size(), size - sent));
    for (size_t i = 0; i < count; ++i) buffer[i] = pattern(sent + i);
    const ssize_t put = ::send(fd, buffer.data(), count, MSG_NOSIGNAL);
    if (put < 0) fail("send");
    sent += static_cast<uint64_t>(put);
  }
  ::shutdown(fd, SHUT_WR);
  char answer[4]{};
  if (::recv(fd, answer, sizeof answer, MSG_WAITALL) != 4) fail("no answer");
  std::printf("sent %llu bytes\n", static_cast<unsigned long long>(size));
}

[[noreturn]] void udpEcho(const Words& words) {
  const int fd = bound(SOCK_DGRAM, words.at(0));
  const timeval forever{};
  ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &forever, sizeof forever);
  std::vector<uint8_t> buffer(1 << 16);
  for (;;) {
    sockaddr_in from{};
    socklen_t length = sizeof from;
    const ssize_t got = ::recvfrom(fd, buffer.data(), buffer.size(), 0,
                                   reinterpret_cast<sockaddr*>(&from), &length);
    if (got >= 0)
      ::sendto(fd, buffer.data(), static_cast<size_t>(got), 0, reinterpret_cast<sockaddr*>(&from),
               length);
  }
}

void udpAsk(const Words& words) {
  const int fd = connected(SOCK_DGRAM, words.at(0), words.at(1));
  const timeval patience{2, 0};
  ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  const uint64_t count = std::stoull(words.at(2));
  const size_t size = std::stoul(words.at(3));
  std::vector<uint8_t> question(size), answer(size + 1);
  unsigned again = 0;
  for (uint64_t number = 0; number < count; ++number) {
    for (size_t i = 0; i < size; ++i) question[i] = pattern(number * 7919 + i);
    ssize_t got = -1;
    for (int tries = 0; tries < 3 && got < 0; ++tries) {
      again += tries > 0;
      if (::send(fd, question.data(), size, 0) < 0) fail("send");
      got = ::recv(fd, answer.data(), answer.size(), 0);
    }
    if (got < 0) fail("no answer to datagram " + std::to_string(number));
    if (static_cast<size_t>(got) != size || std::memcmp(answer.data(), question.data(), size) != 0)
      throw std::runtime_error("datagram " + std::to_string(number) + " is another one");
  }
  std::printf("%llu answers, %u sent again\n", static_cast<unsigned long long>(count), again);
}

// ioctl(2) for a device; the kernel's interface of ethtool.
template <typename Command>
void ethtool(const std::string& device, Command& command) {
  ifreq request{};
  std::strncpy(request.ifr_name, device.c_str(), IFNAMSIZ - 1);
  request.ifr_data = reinterpret_cast<char*>(&command);
  if (::ioctl(openSocket(SOCK_DGRAM), SIOCETHTOOL, &request) != 0) fail(device);
}

void offload(const Words& words) {
  const std::map<std::string, std::pair<uint32_t, uint32_t>> commands{
      {"rx", {ETHTOOL_GRXCSUM, ETHTOOL_SRXCSUM}},
      {"tx", {ETHTOOL_GTXCSUM, ETHTOOL_STXCSUM}},
      {"tso", {ETHTOOL_GTSO, ETHTOOL_STSO}},
      {"gso", {ETHTOOL_GGSO, ETHTOOL_SGSO}},
      {"gro", {ETHTOOL_GGRO, ETHTOOL_SGRO}}};
  const auto [get, set] = commands.at(words.at(1));
  ethtool_value value{set, words.at(2) == "on"};
  ethtool(words[0], value);
  value.cmd = get;
  ethtool(words[0], value);
  std::printf("%s %s\n", words[1].c_str(), value.data ? "on" : "off");
}

void channels(const Words& words) {
  ethtool_channels value{};
  value.cmd = ETHTOOL_GCHANNELS;
  ethtool(words.at(0), value);
  value.cmd = ETHTOOL_SCHANNELS;
  value.combined_count = static_cast<uint32_t>(std::stoul(words.at(1)));
  ethtool(words[0], value);
  value.cmd = ETHTOOL_GCHANNELS;
  ethtool(words[0], value);
  std::printf("%u of %u channels\n", value.combined_count, value.max_combined);
}

}  // namespace

int main(int argc, char** argv) {
  const std::map<std::string, void (*)(const Words&)> jobs{
      {"tcp-receive", tcpReceive}, {"tcp-send", tcpSend}, {"udp-echo", udpEcho},
      {"udp-ask", udpAsk},         {"offload", offload},  {"channels", channels}};
  try {
    jobs.at(argc > 1 ? argv[1] : "")(Words(argv + std::min(argc, 2), argv + argc));
    return 0;
  } catch (const std::exception& error) {
    std::printf("failed: %s\n", error.what());
    return 1;
  }
}
