// Messages over a real socket: cut anywhere, with descriptors, and from a side that breaks a bound.
#include "common/control_stream.h"

#include <catch2/catch.hpp>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstddef>
#include <cstring>
#include <filesystem>
#include <iterator>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "common/unique_fd.h"

using namespace vdpa;
using Format = ControlStream::Format;

namespace {

size_t openDescriptors() {
  const std::filesystem::directory_iterator all("/proc/self/fd");
  return static_cast<size_t>(std::distance(begin(all), end(all)));
}

struct Pair {
  explicit Pair(size_t maxMessage = 1000) : Pair(makeSockets(), maxMessage) {}
  Pair(std::pair<UniqueFd, UniqueFd> sockets, size_t maxMessage)
      : raw(std::move(sockets.first)), stream(std::move(sockets.second), maxMessage) {}

  static std::pair<UniqueFd, UniqueFd> makeSockets() {
    int ends[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0);
    return {UniqueFd(ends[0]), UniqueFd(ends[1])};
  }

  // One write of `bytes`, with copies of `descriptors`.
  void write(const std::string& bytes, const std::vector<int>& descriptors = {}) const {
    iovec data{const_cast<char*>(bytes.data()), bytes.size()};
    msghdr message{};
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    std::vector<char> buffer(CMSG_SPACE(descriptors.size() * sizeof(int)));
    if (!descriptors.empty()) {
      message.msg_control = buffer.data();
      message.msg_controllen = buffer.size();
      cmsghdr* header = CMSG_FIRSTHDR(&message);
      header->cmsg_level = SOL_SOCKET;
      header->cmsg_type = SCM_RIGHTS;
      header->cmsg_len = CMSG_LEN(descriptors.size() * sizeof(int));
      std::memcpy(CMSG_DATA(header), descriptors.data(), descriptors.size() * sizeof(int));
    }
    REQUIRE(::sendmsg(raw.get(), &message, MSG_NOSIGNAL) == static_cast<ssize_t>(bytes.size()));
  }

  std::vector<ControlStream::Message> receive() {
    std::vector<ControlStream::Message> messages;
    open = stream.receive(
        [&](ControlStream::Message message) { messages.push_back(std::move(message)); });
    return messages;
  }

  UniqueFd raw;
  ControlStream stream;
  bool open = true;
};

std::string frame(const std::string& bytes, unsigned descriptors = 0) {
  std::string header{0, 0, 0, 0, 0};
  header[2] = static_cast<char>(bytes.size() >> 8);
  header[3] = static_cast<char>(bytes.size() & 0xff);
  header[4] = static_cast<char>(descriptors);
  return header + bytes;
}

control::Descriptor at(unsigned index) {
  control::Descriptor field;
  field.set_index(index);
  return field;
}

bool same(int one, int other) {
  struct stat a, b;
  return ::fstat(one, &a) == 0 && ::fstat(other, &b) == 0 && a.st_dev == b.st_dev &&
         a.st_ino == b.st_ino;
}

UniqueFd file() {
  return UniqueFd(::open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
}

}  // namespace

TEST_CASE("lines and frames arrive whole, wherever they are cut") {
  const std::string bytes = "{\"a\":1}\n" + frame("one\ntwo") + frame("") + "{}\n";
  const auto step = static_cast<size_t>(GENERATE(1, 2, 5, 7, 100));
  Pair pair;
  std::vector<ControlStream::Message> messages;
  for (size_t begin = 0; begin < bytes.size(); begin += step) {
    pair.write(bytes.substr(begin, step));
    for (auto& message : pair.receive()) messages.push_back(std::move(message));
  }
  REQUIRE(messages.size() == 4);
  CHECK((messages[0].format == Format::line && messages[0].bytes == "{\"a\":1}"));
  CHECK((messages[1].format == Format::frame && messages[1].bytes == "one\ntwo"));
  CHECK((messages[2].format == Format::frame && messages[2].bytes.empty()));
  CHECK((messages[3].format == Format::line && messages[3].bytes == "{}"));
  CHECK(pair.open);
  pair.raw.reset();
  CHECK(pair.receive().empty());
  CHECK_FALSE(pair.open);
}

TEST_CASE("a frame's first byte is that of no line, and its length is in network byte order") {
  Pair pair;
  pair.stream.send({Format::frame, std::string(258, 'x'), {}});
  pair.stream.send({Format::line, "{}", {}});
  char bytes[300];
  REQUIRE(::read(pair.raw.get(), bytes, sizeof bytes) == 5 + 258 + 3);
  CHECK(std::string(bytes, 5) == std::string("\0\0\1\2\0", 5));
  CHECK(std::string(bytes + 5 + 258, 3) == "{}\n");
}

TEST_CASE("what the socket has no room for is sent later, with its descriptors") {
  auto [one, other] = Pair::makeSockets();
  ControlStream sender(std::move(one), ControlStream::kMaxMessage);
  ControlStream receiver(std::move(other), ControlStream::kMaxMessage);
  const UniqueFd sent = file();
  const std::string large(3 << 20, 'x');
  Descriptors descriptors;
  const auto field = descriptors.add(UniqueFd(::dup(sent.get())));
  sender.send({Format::frame, large, {}});
  sender.send({Format::frame, "with one", std::move(descriptors)});
  sender.send({Format::frame, "after it", {}});
  CHECK_FALSE(sender.sent());
  CHECK_FALSE(sender.flush());

  std::vector<ControlStream::Message> messages;
  for (int i = 0; i < 10000 && messages.size() < 3; ++i) {
    REQUIRE(receiver.receive(
        [&](ControlStream::Message message) { messages.push_back(std::move(message)); }));
    sender.flush();
  }
  REQUIRE(messages.size() == 3);
  CHECK(sender.sent());
  CHECK(messages[0].bytes == large);
  CHECK(messages[1].bytes == "with one");
  CHECK(same(messages[1].descriptors.take(field).get(), sent.get()));
  CHECK(messages[0].descriptors.empty());
  CHECK(messages[2].descriptors.empty());
}

TEST_CASE("descriptors are those that the fields name, and close-on-exec") {
  const size_t before = openDescriptors();
  {
    Pair pair;
    const UniqueFd first = file(), second = file();
    pair.write(frame("x", 2), {first.get(), second.get()});
    auto messages = pair.receive();
    REQUIRE(messages.size() == 1);
    auto& descriptors = messages[0].descriptors;
    const UniqueFd taken = descriptors.take(at(1));
    CHECK(same(taken.get(), second.get()));
    CHECK((::fcntl(taken.get(), F_GETFD) & FD_CLOEXEC) != 0);
    CHECK_THROWS_WITH(descriptors.take(at(1)), "descriptor 1 is missing: 2 came with the message");
    CHECK_THROWS_WITH(descriptors.take(at(2)), "descriptor 2 is missing: 2 came with the message");
    CHECK(same(descriptors.take(at(0)).get(), first.get()));
  }
  CHECK(openDescriptors() == before);
}

TEST_CASE("each frame has its own descriptors, however they were written") {
  Pair pair;
  const UniqueFd first = file(), second = file();
  const std::string one = frame("one", 1);
  pair.write(one.substr(0, 2), {first.get()});
  CHECK(pair.receive().empty());
  pair.write(one.substr(2) + frame("none"));
  pair.write(frame("two", 1), {second.get()});
  auto messages = pair.receive();
  REQUIRE(messages.size() == 3);
  CHECK(same(messages[0].descriptors.take(at(0)).get(), first.get()));
  CHECK(messages[1].descriptors.empty());
  CHECK(same(messages[2].descriptors.take(at(0)).get(), second.get()));
}

TEST_CASE("descriptors that no message has are closed") {
  Pair pair;
  const UniqueFd sent = file();
  const size_t before = openDescriptors();
  pair.write(frame("x"), {sent.get()});
  pair.write(frame("y", 1), {sent.get(), sent.get()});
  pair.write("{}\n", {sent.get()});
  {
    const auto messages = pair.receive();
    REQUIRE(messages.size() == 3);
    CHECK(messages[0].descriptors.empty());
    CHECK(messages[1].descriptors.size() == 1);
    CHECK(messages[2].descriptors.empty());
  }
  CHECK(openDescriptors() == before);
}

TEST_CASE("a side that breaks a bound is refused") {
  Pair pair;
  const UniqueFd sent = file();
  const size_t before = openDescriptors();
  const std::vector<int> many(Descriptors::kMax + 1, sent.get());
  SECTION("by a frame's length, before it is there") {
    pair.write(std::string("\0\0\3\351\0", 5));
    CHECK_THROWS_WITH(pair.receive(), "a message of 1001 bytes: at most 1000 are expected");
  }
  SECTION("by the largest length") {
    pair.write(std::string("\0\377\377\377\0", 5));
    CHECK_THROWS_WITH(pair.receive(), Catch::Contains("at most 1000 are expected"));
  }
  SECTION("by a line without an end") {
    pair.write(std::string(1001, '{'));
    CHECK_THROWS_WITH(pair.receive(), Catch::Contains("at most 1000 are expected"));
  }
  SECTION("by a frame whose descriptors did not come") {
    pair.write(frame("x", 2), {sent.get()});
    CHECK_THROWS_WITH(pair.receive(), "of a message's 2 descriptors only 1 came with it");
  }
  SECTION("by too many descriptors") {
    pair.write(frame("x", Descriptors::kMax + 1), many);
    CHECK_THROWS_WITH(pair.receive(), "more than 16 descriptors came with a message");
  }
  SECTION("by too many descriptors, one after the other") {
    const std::string bytes = frame(std::string(100, 'x'), 1);
    pair.write(bytes.substr(0, 10), {many.begin(), many.begin() + 9});
    pair.write(bytes.substr(10, 10), {many.begin(), many.begin() + 9});
    CHECK_THROWS_WITH(pair.receive(), "more than 16 descriptors came with a message");
  }
  { Pair gone(std::move(pair)); }
  CHECK(openDescriptors() == before - 2);
}

TEST_CASE("what can't be sent is refused at once") {
  Pair pair;
  Descriptors descriptors;
  for (size_t i = 0; i < Descriptors::kMax; ++i) CHECK(descriptors.add(file()).index() == i);
  CHECK_THROWS_AS(descriptors.add(file()), std::length_error);
  CHECK_THROWS_AS(pair.stream.send({Format::line, "{}", std::move(descriptors)}), std::logic_error);
  CHECK_THROWS_WITH(
      pair.stream.send({Format::frame, std::string(ControlStream::kMaxMessage + 1, 'x'), {}}),
      Catch::Contains("at most 8388608 are sent"));
  CHECK(pair.stream.sent());
  const std::string large(3 << 20, 'x');
  pair.stream.send({Format::frame, large, {}});
  pair.stream.send({Format::frame, large, {}});
  CHECK_THROWS_WITH(pair.stream.send({Format::frame, large, {}}),
                    Catch::Contains("the other side does not read"));
}

TEST_CASE("what the other side said before it went is still received") {
  Pair pair;
  pair.write(frame("last words"));
  pair.raw.reset();
  pair.stream.send({Format::frame, "x", {}});
  CHECK(pair.stream.sent());
  const auto messages = pair.receive();
  REQUIRE(messages.size() == 1);
  CHECK(messages[0].bytes == "last words");
  CHECK_FALSE(pair.open);
}
