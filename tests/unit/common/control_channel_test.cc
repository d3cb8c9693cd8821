// The control channel end to end over a real socket: answers, errors, events, descriptors, a silent
// and a dying server; and who speaks which form.
#include "common/control_channel.h"

#include <catch2/catch.hpp>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include "common/control_json.h"
#include "common/control_stream.h"
#include "common/event_thread.h"
#include "common/unique_fd.h"
#include "common/unix_socket.h"
#include "tests/unit/datapath/temporary_directory.h"

using namespace vdpa;
using namespace std::chrono_literals;
using Peer = ControlClient::Peer;
using Format = ControlStream::Format;

namespace {

struct Server {
  explicit Server(const std::string& path, ControlServer::Handler handler)
      : server(std::make_unique<ControlServer>(path, std::move(handler))),
        thread([this] { run(); }) {}
  ~Server() {
    stop = true;
    thread.join();
  }
  void run() {
    control::Event event;
    event.mutable_opened()->set_id("nic-0");
    while (!stop) {
      pollfd ready{server->fd(), POLLIN, 0};
      if (::poll(&ready, 1, 5) > 0) server->process();
      if (announce.exchange(false)) server->broadcast(event);
    }
    server.reset();
  }
  std::unique_ptr<ControlServer> server;
  std::atomic<bool> stop = false, announce = false;
  std::thread thread;
};

// On a thread of its own; calls come from this one.
class Client {
 public:
  Client(const std::string& path, Peer peer, ControlClient::EventHandler onEvent = nullptr,
         ControlClient::ClosedHandler onClosed = nullptr) {
    thread_.run([&] {
      client_.emplace(thread_.loop(), path, peer, std::move(onEvent), std::move(onClosed));
    });
  }
  ~Client() {
    thread_.run([this] { client_.reset(); });
  }
  control::Answer call(control::Request request, std::chrono::milliseconds timeout = 5s,
                       Descriptors descriptors = {}) {
    return thread_.wait(client_->call(std::move(request), timeout, std::move(descriptors)));
  }

 private:
  EventThread thread_;
  std::optional<ControlClient> client_;
};

template <typename Condition>
bool eventually(Condition condition) {
  for (int i = 0; i < 2000; ++i, std::this_thread::sleep_for(5ms))
    if (condition()) return true;
  return false;
}

// The answer repeats the ID.
control::Request echo(const std::string& id) {
  control::Request request;
  request.mutable_add_port()->set_id(id);
  return request;
}

control::Request goRequest() {
  control::Request request;
  request.mutable_go();
  return request;
}

control::Answer answer(const control::Request& request, Descriptors&) {
  control::Answer answer;
  if (request.has_hello()) {
    answer.mutable_hello()->set_program("vdpa-switch");
    answer.mutable_hello()->mutable_vswitch()->set_mtu(1500);
  } else if (request.has_add_port()) {
    answer.mutable_add_port()->set_socket(request.add_port().id());
  } else {
    throw std::runtime_error("cannot " + operationName(request.operation_case()));
  }
  return answer;
}

// One end of a connection, by hand.
class Raw {
 public:
  explicit Raw(UniqueFd socket) : stream_(std::move(socket), ControlStream::kMaxMessage) {}

  void send(Format format, const std::string& bytes) { stream_.send({format, bytes, {}}); }
  // The next one, or none if the connection ends.
  std::optional<ControlStream::Message> next() {
    std::optional<ControlStream::Message> next;
    for (bool open = true; open && !next;) {
      pollfd ready{stream_.fd(), POLLIN, 0};
      REQUIRE(::poll(&ready, 1, 5000) == 1);
      open = stream_.receive([&](ControlStream::Message message) { next = std::move(message); });
    }
    return next;
  }

 private:
  ControlStream stream_;
};

Raw acceptRaw(int listener) {
  pollfd ready{listener, POLLIN, 0};
  REQUIRE(::poll(&ready, 1, 5000) == 1);
  UniqueFd socket(::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  REQUIRE(socket);
  return Raw(std::move(socket));
}

}  // namespace

TEST_CASE("calls, errors and events pass the control channel") {
  const TemporaryDirectory directory;
  const std::string path = directory.path() + "/c.sock";
  const auto peer = GENERATE(Peer::started, Peer::found);
  std::atomic<int> events = 0;
  std::atomic<int> closed = 0;
  {
    auto server = std::make_unique<Server>(path, answer);
    Client client(
        path, peer,
        [&](const control::Event& event) { events += event.opened().id() == "nic-0" ? 1 : 100; },
        [&] { ++closed; });
    CHECK(client.call(helloRequest()).hello().program() == "vdpa-switch");
    const std::string large(300000, 'x');
    CHECK(client.call(echo(large)).add_port().socket() == large);
    CHECK_THROWS_WITH(client.call(goRequest()), "cannot go");
    CHECK(askOnce(path, echo(large)).add_port().socket() == large);
    CHECK_THROWS_WITH(askOnce(path, goRequest()), "cannot go");

    server->announce = true;
    CHECK(eventually([&] { return events == 1; }));

    server.reset();
    CHECK_THROWS_WITH(client.call(helloRequest()),
                      Catch::Contains("no answer to 'hello' on " + path));
    CHECK(eventually([&] { return closed == 1; }));
  }
  CHECK_FALSE(std::filesystem::exists(path));
  CHECK_THROWS_AS(Client(path, peer), std::system_error);
  CHECK_THROWS_AS(askOnce(path, helloRequest()), std::system_error);
}

TEST_CASE("a server that says nothing is given up on") {
  const TemporaryDirectory directory;
  const std::string path = directory.path() + "/c.sock";
  ControlServer silent(path, answer);
  Client client(path, Peer::started);
  CHECK_THROWS_WITH(client.call(helloRequest(), 50ms), Catch::Contains("timed out"));
  CHECK_THROWS_WITH(askOnce(path, helloRequest(), 50ms), Catch::Contains("timed out"));
}

TEST_CASE("a process answers in the form of the request, and says that it understands frames") {
  const TemporaryDirectory directory;
  const std::string path = directory.path() + "/c.sock";
  Server server(path, answer);
  Raw datapath(connectUnix(path));
  auto request = helloRequest();
  request.set_id(3);

  datapath.send(Format::line, requestToJson(request));
  const auto line = datapath.next();
  REQUIRE((line && line->format == Format::line));
  const auto said =
      fromProcessFromJson(line->bytes, [](int64_t) { return control::Request::kHello; });
  REQUIRE(said);
  CHECK(said->answer().hello().frames());

  datapath.send(Format::frame, request.SerializeAsString());
  const auto frame = datapath.next();
  REQUIRE((frame && frame->format == Format::frame));
  control::FromProcess message;
  REQUIRE(message.ParseFromString(frame->bytes));
  CHECK(message.SerializeAsString() == said->SerializeAsString());

  for (const auto format : {Format::line, Format::frame}) {
    datapath.send(format,
                  format == Format::line ? requestToJson(request) : request.SerializeAsString());
    REQUIRE(datapath.next());
    server.announce = true;
    const auto event = datapath.next();
    REQUIRE(event);
    CHECK(event->format == format);
  }
}

TEST_CASE("events before the first request are lines") {
  const TemporaryDirectory directory;
  const std::string path = directory.path() + "/c.sock";
  Server server(path, answer);
  Raw datapath(connectUnix(path));
  std::this_thread::sleep_for(20ms);  // an event before it is accepted is not for it
  server.announce = true;
  const auto event = datapath.next();
  REQUIRE(event);
  CHECK(event->format == Format::line);
  CHECK(event->bytes == R"({"event":"opened","id":"nic-0"})");
}

TEST_CASE("the datapath begins with a form that the process understands") {
  const TemporaryDirectory directory;
  const std::string path = directory.path() + "/c.sock";
  const UniqueFd listener = listenUnix(path, 0600);
  REQUIRE(::listen(listener.get(), 1) == 0);
  const auto hello = [](bool frames) {
    control::FromProcess message;
    message.mutable_answer()->set_id(1);
    message.mutable_answer()->mutable_hello()->set_program("vdpa-switch");
    message.mutable_answer()->mutable_hello()->set_frames(frames);
    return message;
  };
  // Asks twice; false: some answer was none.
  const auto ask = [&](Peer peer, bool& understood) {
    return std::thread([&, peer] {
      Client client(path, peer);
      understood = client.call(helloRequest()).hello().program() == "vdpa-switch";
      client.call(goRequest());
    });
  };
  bool understood = false;
  SECTION("frames with one that it has started") {
    auto datapath = ask(Peer::started, understood);
    Raw process = acceptRaw(listener.get());
    CHECK(process.next()->format == Format::frame);
    process.send(Format::frame, hello(true).SerializeAsString());
    CHECK(process.next()->format == Format::frame);
    control::FromProcess done;
    done.mutable_answer()->set_id(2);
    process.send(Format::frame, done.SerializeAsString());
    datapath.join();
  }
  SECTION("a line with one that it found, and frames once it says that it understands them") {
    auto datapath = ask(Peer::found, understood);
    Raw process = acceptRaw(listener.get());
    const auto first = process.next();
    CHECK(first->format == Format::line);
    CHECK(first->bytes == R"({"args":{},"id":1,"op":"hello"})");
    process.send(Format::line, fromProcessToJson(hello(true)));
    CHECK(process.next()->format == Format::frame);
    control::FromProcess done;
    done.mutable_answer()->set_id(2);
    process.send(Format::frame, done.SerializeAsString());
    datapath.join();
  }
  SECTION("only lines with one of 0.1.0") {
    auto datapath = ask(Peer::found, understood);
    Raw process = acceptRaw(listener.get());
    CHECK(process.next()->format == Format::line);
    process.send(Format::line, fromProcessToJson(hello(false)));
    const auto second = process.next();
    CHECK(second->format == Format::line);
    CHECK(second->bytes == R"({"args":{},"id":2,"op":"go"})");
    process.send(Format::line, R"({"id":2,"ok":{}})");
    datapath.join();
  }
  CHECK(understood);
}

TEST_CASE("a request hands descriptors over, but not to a process of 0.1.0") {
  const TemporaryDirectory directory;
  const std::string path = directory.path() + "/c.sock";
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  const UniqueFd reader(ends[0]), writer(ends[1]);
  Server server(path, [](const control::Request& request, Descriptors& descriptors) {
    control::Descriptor field;
    field.set_index(static_cast<uint32_t>(request.hold().milliseconds()));
    const UniqueFd pipe = descriptors.take(field);
    CHECK(::write(pipe.get(), "x", 1) == 1);
    return control::Answer();
  });
  const auto request = [](unsigned index) {
    control::Request request;
    request.mutable_hold()->set_milliseconds(index);
    return request;
  };
  const auto descriptors = [&] {
    Descriptors descriptors;
    descriptors.add(UniqueFd(::dup(writer.get())));
    return descriptors;
  };
  Client client(path, Peer::started);
  client.call(request(0), 5s, descriptors());
  char byte = 0;
  CHECK(::read(reader.get(), &byte, 1) == 1);
  CHECK_THROWS_WITH(client.call(request(1), 5s, descriptors()),
                    "descriptor 1 is missing: 1 came with the message");
  CHECK_THROWS_WITH(client.call(request(0)), "descriptor 0 is missing: 0 came with the message");
  Client old(path, Peer::found);
  CHECK_THROWS_WITH(old.call(request(0), 5s, descriptors()),
                    "the process on " + path + " is of release 0.1.0 and takes no descriptors");
}

TEST_CASE("a connection that breaks the protocol ends, and no other") {
  const TemporaryDirectory directory;
  const std::string path = directory.path() + "/c.sock";
  Server server(path, answer);
  Client client(path, Peer::started);
  Raw broken(connectUnix(path));
  SECTION("by a frame that is no request") {
    broken.send(Format::frame, "\xff");
    CHECK_FALSE(broken.next());
  }
  SECTION("by a request that is too large") {
    broken.send(Format::frame, std::string(2 << 20, 'x'));
    CHECK_FALSE(broken.next());
  }
  SECTION("but not by an operation of a later release") {
    broken.send(Format::frame, std::string("\x08\x01\xfa\x01\x00", 5));  // id 1, field 31
    const auto said = broken.next();
    REQUIRE(said);
    control::FromProcess message;
    REQUIRE(message.ParseFromString(said->bytes));
    CHECK(message.answer().id() == 1);
    CHECK_THAT(message.answer().error(), Catch::Contains("unknown operation; this is release "));
  }
  CHECK(client.call(echo("x")).add_port().socket() == "x");
}
