// The netlink layer: what it reads of bytes that are cut short or make no sense, what it sends, and
// what it makes of a kernel's answers.
#include <catch2/catch.hpp>
#include <linux/genetlink.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "common/errors.h"
#include "common/mac_address.h"
#include "common/netlink/attributes.h"
#include "common/netlink/error.h"
#include "common/netlink/generic.h"
#include "common/netlink/message.h"
#include "common/netlink/request.h"
#include "common/netlink/socket.h"
#include "common/unique_fd.h"

using namespace vdpa;
using namespace vdpa::netlink;

namespace {

constexpr uint16_t kType = 20;  // of messages that no control message has

// Three lists, one in the other.
Request nested() {
  Request request(kType);
  request.body<ifinfomsg>().ifi_index = 3;
  request.text(1, "eth1");
  request.nest(2, [&] {
    request.number(3, uint32_t{0x01020304});
    request.nest(4, [&] {
      request.mac(5, MacAddress({2, 0, 0, 0, 0, 1}));
      request.text(6, "inner");
    });
  });
  return request;
}

// Reads everything down to this depth, and returns the number of attributes.
size_t readAll(Attributes attributes, int depth) {
  size_t read = 0;
  for (const Attribute attribute : attributes) {
    ++read;
    std::vector<std::byte> copy(attribute.bytes().begin(), attribute.bytes().end());
    CHECK(attribute.text().size() <= copy.size());
    CHECK(attribute.number<uint32_t>().has_value() == (copy.size() == 4));
    CHECK(attribute.structure<ifinfomsg>().has_value() == (copy.size() >= sizeof(ifinfomsg)));
    CHECK(attribute.mac().has_value() == (copy.size() == 6));
    if (depth > 0) read += readAll(attribute.nested(), depth - 1);
  }
  return read;
}

// A copy that ends where the memory ends, so that a sanitizer sees what is read beyond.
std::vector<std::byte> exactly(Bytes bytes) {
  std::vector<std::byte> copy(bytes.begin(), bytes.end());
  copy.shrink_to_fit();
  return copy;
}

// The kernel's end of a Socket: answers are written before they are asked for, since the numbers of
// requests are known.
class Kernel {
 public:
  Kernel() {
    std::array<int, 2> ends{};
    checked(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()), "socketpair");
    ours_ = UniqueFd(ends[0]);
    theirs_ = UniqueFd(ends[1]);
  }

  Socket socket() { return Socket(std::move(theirs_), std::chrono::milliseconds(50)); }
  // Adds a message to the datagram that send() sends.
  Kernel& message(uint32_t sequence, uint16_t type, Request request, uint16_t flags = 0) {
    nlmsghdr* header = request.header();
    header->nlmsg_seq = sequence;
    header->nlmsg_type = type;
    header->nlmsg_flags = flags;
    const Bytes bytes = request.message();
    datagram_.insert(datagram_.end(), bytes.begin(), bytes.end());
    return *this;
  }
  Kernel& part(uint32_t sequence, uint32_t number, uint16_t flags = NLM_F_MULTI) {
    Request request(kType);
    request.number(1, number);
    return message(sequence, kType, request, flags);
  }
  Kernel& done(uint32_t sequence, int error = 0, uint16_t flags = NLM_F_MULTI,
               const std::string& text = "") {
    Request request(NLMSG_DONE);
    request.body<int>() = error;
    if (!text.empty()) request.text(NLMSGERR_ATTR_MSG, text);
    return message(sequence, NLMSG_DONE, request, flags);
  }
  Kernel& acknowledge(uint32_t sequence, int error = 0) {
    Request request(NLMSG_ERROR);
    request.body<nlmsgerr>().error = error;
    return message(sequence, NLMSG_ERROR, request, NLM_F_CAPPED);
  }
  void send() {
    checked(static_cast<int>(::send(ours_.get(), datagram_.data(), datagram_.size(), 0)), "send");
    datagram_.clear();
  }
  size_t requests() {
    size_t count = 0;
    std::array<char, 4096> buffer;
    while (::recv(ours_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT) > 0) ++count;
    return count;
  }

 private:
  UniqueFd ours_, theirs_;
  std::vector<std::byte> datagram_;
};

using Numbers = std::vector<uint32_t>;

void collect(Numbers& numbers, const Message& message) {
  for (const Attribute attribute : message.attributes(0))
    numbers.push_back(attribute.number<uint32_t>().value_or(0));
}

Numbers dump(Socket& socket) {
  Request request(kType);
  return socket.dump<Numbers>(request, "list numbers", collect);
}

}  // namespace

TEST_CASE("netlink: a request holds what was added to it") {
  Request request = nested();
  const Request copy = request;  // has its own buffer
  Messages messages(copy.message());
  const auto message = messages.next();
  REQUIRE(message);
  CHECK(message->type() == kType);
  CHECK(message->flags() == NLM_F_REQUEST);
  CHECK(message->body<ifinfomsg>()->ifi_index == 3);
  CHECK(message->body<ifinfomsg>()->ifi_flags == 0);
  std::vector<uint16_t> types;
  for (const Attribute attribute : message->attributes<ifinfomsg>()) {
    types.push_back(attribute.type());
    if (attribute.type() == 1) CHECK(attribute.text() == "eth1");
    if (attribute.type() != 2) continue;
    for (const Attribute inner : attribute.nested()) {
      types.push_back(inner.type());
      if (inner.type() == 3) CHECK(inner.number<uint32_t>() == 0x01020304u);
      if (inner.type() != 4) continue;
      for (const Attribute last : inner.nested()) types.push_back(last.type());
    }
  }
  CHECK(types == std::vector<uint16_t>{1, 2, 3, 4, 5, 6});
  CHECK_FALSE(messages.next());
  CHECK(messages.rest().empty());
}

TEST_CASE("netlink: a request that is full refuses more, and is sent as it was") {
  Request request = nested();
  const auto before = exactly(request.message());
  CHECK_THROWS_AS(request.text(7, std::string(1024, 'a')), std::length_error);
  CHECK_THROWS_AS(request.text(7, std::string(70000, 'a')), std::length_error);
  CHECK(exactly(request.message()) == before);
  const auto fill = [&] {
    for (;;) request.bytes(7, nullptr, 0);
  };
  CHECK_THROWS_AS(fill(), std::length_error);
  CHECK(request.message().size() == 1024);
  CHECK_THROWS_AS(request.nest(8, [] {}), std::length_error);
}

TEST_CASE("netlink: attributes that are cut short") {
  const Request request = nested();
  const Bytes whole = Messages(request.message()).next()->attributes<ifinfomsg>().bytes();
  CHECK(readAll(Attributes(whole), 2) == 6);
  for (size_t size = 0; size < whole.size(); ++size) {
    const auto cut = exactly(whole.first(size));
    CHECK(readAll(Attributes(cut), 2) < 6);
  }
}

TEST_CASE("netlink: a list inside a list does not end after it") {
  Request request = nested();
  std::vector<std::byte> bytes = exactly(Messages(request.message()).next()->payload());
  // The innermost list begins after ifinfomsg, "eth1", the outer list's header and a number.
  const size_t at = sizeof(ifinfomsg) + 12 + 4 + 8;
  uint16_t length = 0;
  std::memcpy(&length, &bytes[at], sizeof length);
  for (const int wrong : {0, 1, 3, length + 1, 0xffff}) {
    const auto changed = static_cast<uint16_t>(wrong);
    std::memcpy(&bytes[at], &changed, sizeof changed);
    CHECK(readAll(Attributes(Bytes(bytes).subspan(sizeof(ifinfomsg))), 2) == 3);
  }
}

TEST_CASE("netlink: garbage is read within its bounds") {
  std::mt19937 random(1);
  size_t read = 0;
  for (int round = 0; round < 5000; ++round) {
    std::vector<std::byte> bytes(random() % 200);
    // Mostly of lengths that are short enough to be believed.
    for (size_t i = 0; i < bytes.size(); ++i)
      bytes[i] = static_cast<std::byte>(i % 4 == 0 || random() % 8 == 0 ? random() % 64 : 0);
    const auto garbage = exactly(bytes);
    read += readAll(Attributes(garbage), 3);
    Messages messages(garbage);
    while (const auto message = messages.next()) read += readAll(message->attributes(0), 2);
  }
  CHECK(read > 1000);
}

TEST_CASE("netlink: a value of another size is none, a text without an end is taken whole") {
  Request request(kType);
  request.number(1, uint16_t{5});
  request.bytes(2, "no end", 6);
  request.bytes(3, nullptr, 0);
  const auto message = Messages(request.message()).next();
  for (const Attribute attribute : message->attributes(0)) {
    CHECK_FALSE(attribute.number<uint32_t>());
    CHECK_FALSE(attribute.number<uint64_t>());
    if (attribute.type() == 1) CHECK(attribute.number<uint16_t>() == uint16_t{5});
    if (attribute.type() == 2) CHECK(attribute.text() == "no end");
    if (attribute.type() == 3) CHECK(attribute.text().empty());
  }
  CHECK_FALSE(message->body<std::array<char, 1000>>());
  CHECK(readAll(message->attributes(1000), 0) == 0);
}

TEST_CASE("netlink: an answer, then its acknowledgement") {
  Kernel kernel;
  Socket socket = kernel.socket();
  kernel.part(1, 5, 0).send();
  kernel.acknowledge(1).send();
  Request request(kType);
  Numbers numbers;
  CHECK_FALSE(socket.request(request, [&](const Message& message) { collect(numbers, message); }));
  CHECK(numbers == Numbers{5});
  CHECK((request.header()->nlmsg_flags & NLM_F_ACK) != 0);
}

TEST_CASE("netlink: a refusal with the kernel's words") {
  Kernel kernel;
  Socket socket = kernel.socket();
  Request refusal(NLMSG_ERROR);
  refusal.body<nlmsgerr>().error = -EINVAL;
  uint16_t flags = NLM_F_ACK_TLVS;
  SECTION("and the header of the request") {
    flags |= NLM_F_CAPPED;
  }
  SECTION("and the whole request") {
    // 16 bytes of header and 10, which end within four.
    struct Echo {
      nlmsgerr error;
      std::array<char, 12> payload;
    };
    Request echo(NLMSG_ERROR);
    auto& body = echo.body<Echo>();
    body.error.error = -EINVAL;
    body.error.msg.nlmsg_len = sizeof(nlmsghdr) + 10;
    body.payload.fill('x');
    refusal = echo;
  }
  refusal.number(NLMSGERR_ATTR_OFFS, uint32_t{20});
  refusal.text(NLMSGERR_ATTR_MSG, "mtu greater than device maximum");
  kernel.message(1, NLMSG_ERROR, refusal, flags).send();
  Request request(kType);
  const Error error = socket.request(request);
  CHECK(error.number == EINVAL);
  CHECK(error.text == "mtu greater than device maximum");
  CHECK(reason(error) == "mtu greater than device maximum: Invalid argument");
  CHECK(failure(error, "cannot set the MTU {}", 9000).what() ==
        std::string("cannot set the MTU 9000: mtu greater than device maximum: Invalid argument"));
}

TEST_CASE("netlink: refusals without words, and some that make no sense") {
  Kernel kernel;
  Socket socket = kernel.socket();
  Request request(kType);
  SECTION("no words") {
    kernel.acknowledge(1, -EPERM).send();
    const Error error = socket.request(request);
    CHECK(reason(error) == "Operation not permitted");
    CHECK(failure(error, "cannot").what() == std::string("cannot: Operation not permitted"));
  }
  SECTION("cut short") {
    kernel.message(1, NLMSG_ERROR, Request(NLMSG_ERROR)).send();
    CHECK(socket.request(request).number == EBADMSG);
  }
  SECTION("no errno value") {
    kernel.acknowledge(1, INT32_MIN).send();
    CHECK(socket.request(request).number == EBADMSG);
  }
  SECTION("words, but where they should be is nothing") {
    Request refusal(NLMSG_ERROR);
    refusal.body<nlmsgerr>().error = -EPERM;
    kernel.message(1, NLMSG_ERROR, refusal, NLM_F_ACK_TLVS).send();
    CHECK(socket.request(request).text.empty());
  }
  SECTION("no answer") {
    CHECK(socket.request(request).number == ETIMEDOUT);
  }
}

TEST_CASE("netlink: an answer that comes after its request was given up is not the next one's") {
  Kernel kernel;
  Socket socket = kernel.socket();
  Request request(kType);
  CHECK(socket.request(request).number == ETIMEDOUT);
  kernel.part(1, 1, 0).acknowledge(1, -EPERM).send();
  kernel.part(2, 2, 0).acknowledge(2).send();
  Numbers numbers;
  CHECK_FALSE(socket.request(request, [&](const Message& message) { collect(numbers, message); }));
  CHECK(numbers == Numbers{2});
}

TEST_CASE("netlink: a datagram longer than the buffer is an error, not half an answer") {
  Kernel kernel;
  Socket socket = kernel.socket();
  for (int i = 0; i < 6000; ++i) kernel.part(1, 1, 0);
  kernel.send();
  Request request(kType);
  CHECK(socket.request(request).number == EMSGSIZE);
}

TEST_CASE("netlink: a dump in several datagrams") {
  Kernel kernel;
  Socket socket = kernel.socket();
  kernel.part(1, 1).part(1, 2).send();
  kernel.part(1, 3).send();
  kernel.done(1).send();
  CHECK(dump(socket) == Numbers{1, 2, 3});
  CHECK(kernel.requests() == 1);
}

TEST_CASE("netlink: a dump that fails at its end") {
  Kernel kernel;
  Socket socket = kernel.socket();
  kernel.part(1, 1).send();
  kernel.done(1, -ENODEV, NLM_F_MULTI | NLM_F_ACK_TLVS, "no such master").send();
  CHECK_THROWS_WITH(dump(socket), "cannot list numbers: no such master: No such device");
}

TEST_CASE("netlink: a dump that changed while it was made is made again") {
  Kernel kernel;
  Socket socket = kernel.socket();
  const uint16_t interrupted = NLM_F_MULTI | NLM_F_DUMP_INTR;
  SECTION("seen in the middle") {
    kernel.part(1, 1).part(1, 2, interrupted).send();
    kernel.part(1, 3).send();
    kernel.done(1).send();
  }
  SECTION("seen at its end") {
    kernel.part(1, 1).send();
    kernel.done(1, 0, interrupted).send();
  }
  kernel.part(2, 1).part(2, 4).send();
  kernel.done(2).send();
  CHECK(dump(socket) == Numbers{1, 4});  // nothing of the first
  CHECK(kernel.requests() == 2);
  // The socket is as good as before.
  kernel.part(3, 7).done(3).send();
  CHECK(dump(socket) == Numbers{7});
}

TEST_CASE("netlink: a dump that changes again and again is given up") {
  Kernel kernel;
  Socket socket = kernel.socket();
  for (uint32_t attempt = 1; attempt <= Socket::kAttempts; ++attempt)
    kernel.part(attempt, 1, NLM_F_MULTI | NLM_F_DUMP_INTR).done(attempt).send();
  CHECK_THROWS_WITH(dump(socket), Catch::Contains("cannot list numbers") &&
                                      Catch::Contains("during each of 10 attempts"));
  CHECK(kernel.requests() == Socket::kAttempts);
}

TEST_CASE("netlink: this kernel") {
  SECTION("has a family for families") {
    Socket socket(NETLINK_GENERIC);
    CHECK(findFamily(socket, "nlctrl") == uint16_t{GENL_ID_CTRL});
    CHECK_FALSE(findFamily(socket, "no-such-family"));
  }
  SECTION("lists its links, and says why one can't be had") {
    Socket socket(NETLINK_ROUTE);
    Request list(RTM_GETLINK);
    list.body<ifinfomsg>();
    const auto indices = socket.dump<std::vector<int>>(
        list, "list links", [](std::vector<int>& found, const Message& message) {
          if (const auto body = message.body<ifinfomsg>()) found.push_back(body->ifi_index);
        });
    CHECK_FALSE(indices.empty());
    Request one(RTM_GETLINK);
    one.body<ifinfomsg>().ifi_index = 0x7ffffff0;
    CHECK(socket.request(one).number == ENODEV);
  }
}
