// Fuzzes the worker's protocol core with sequences of messages and descriptors. The input decides
// both: some records are well-formed messages with the input's values and kinds of descriptors,
// others are raw bytes. Invariants: no crash, no descriptor left open, and every running ring could
// be handed to an engine.
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "common/unique_fd.h"
#include "deviceplugin/datapath/vhost_user/message.h"
#include "deviceplugin/datapath/vhost_user/message_reader.h"
#include "deviceplugin/datapath/vhost_user/protocol_error.h"
#include "deviceplugin/datapath/vhost_user/ring_position.h"
#include "deviceplugin/datapath/vhost_user/session.h"
#include "deviceplugin/datapath/vhost_user/vhost_device.h"
#include "deviceplugin/datapath/vhost_user/vhost_user_protocol.h"
#include "deviceplugin/datapath/virtqueue/wire.h"
#include "tests/unit/worker/front_end.h"

namespace vdpa::vhost_user {
namespace {

class Input {
 public:
  explicit Input(std::span<const std::byte> data) : data_(data) {}
  bool empty() const { return data_.empty(); }
  uint8_t byte() { return empty() ? 0 : static_cast<uint8_t>(take(1)[0]); }
  std::span<const std::byte> take(size_t size) {
    const auto taken = data_.first(std::min(size, data_.size()));
    data_ = data_.subspan(taken.size());
    return taken;
  }

 private:
  std::span<const std::byte> data_;
};

UniqueFd memory(Input& input) {
  const off_t size = off_t{input.byte()} << 12;
  UniqueFd fd = test::memoryFile(static_cast<size_t>(size), "fuzz");
  // Its beginning also comes from the input: rings in which to find a position.
  const auto content = input.take(input.byte());
  if (size > 0 && ::pwrite(fd.get(), content.data(), content.size(), 0) < 0) std::abort();
  return fd;
}

UniqueFd descriptor(Input& input) {
  switch (input.byte() % 6) {
    case 0:
      return test::eventFd();
    case 1:
    case 2:
      return memory(input);
    case 3:
      return UniqueFd(::open("/dev/null", O_RDWR | O_CLOEXEC));
    case 4:
      return UniqueFd(::open("/dev/zero", O_RDONLY | O_CLOEXEC));
    default: {
      int ends[2];
      if (::pipe2(ends, O_CLOEXEC) < 0) std::abort();
      ::close(ends[1]);
      return UniqueFd(ends[0]);
    }
  }
}

// The guarantees on which an engine relies. An exception from checkRing() is a finding.
void checkDevice(VhostDevice& device) {
  for (size_t i = 0; i < device.rings.size(); ++i) {
    if (!device.rings[i].started) continue;
    checkRing(device, device.memory.get(), i);
    try {
      recoverPosition(device, i);
    } catch (const ProtocolError&) {
    }
  }
}

std::vector<std::byte> memoryTable(Input& input) {
  WireMemoryTable table{};
  table.regionCount = 1 + input.byte() % 3;
  for (uint32_t i = 0; i < table.regionCount; ++i) {
    const uint64_t address = uint64_t{input.byte()} << 12;
    table.regions[i] = {address, uint64_t{input.byte()} << 12, address,
                        uint64_t{input.byte()} % 4 << 12};
  }
  auto bytes = test::bytesOf(table);
  bytes.resize(offsetof(WireMemoryTable, regions) + table.regionCount * sizeof(WireRegion));
  return bytes;
}

VringAddresses addresses(Input& input) {
  const auto address = [&] { return uint64_t{input.byte()} << 12 | uint64_t{input.byte()} << 1; };
  return {input.byte() % 5u, input.byte() > 250 ? 1u : 0u, address(), address(), address(), 0};
}

// A well-formed message for its request.
std::vector<std::byte> shapedPayload(Request request, const OfferedFeatures& offered,
                                     Input& input) {
  switch (request) {
    case Request::SetFeatures: {
      const uint64_t packed = input.byte() % 2 ? feature::kPackedRing : 0;
      return test::bytesOf(feature::kVersion1 | feature::kProtocolFeatures | packed);
    }
    case Request::SetProtocolFeatures:
      return test::bytesOf(offered.protocolFeatures & (uint64_t{input.byte()} << 16 | 0xffff));
    case Request::SetStatus:
    case Request::NetSetMtu:
      return test::bytesOf(uint64_t{input.byte()} * input.byte());
    case Request::SetVringNum:
    case Request::SetVringBase:
    case Request::GetVringBase:
      return test::bytesOf(
          VringState{input.byte() % 5u, uint32_t{input.byte()} << (input.byte() % 12)});
    case Request::SetVringEnable:
      return test::bytesOf(VringState{input.byte() % 5u, input.byte() % 3u});
    case Request::SetVringAddr:
      return test::bytesOf(addresses(input));
    case Request::SetVringKick:
    case Request::SetVringCall:
    case Request::SetVringErr:
      return test::bytesOf(uint64_t{input.byte() % 5u} |
                           (input.byte() > 200 ? kVringNoDescriptor : 0));
    case Request::SetMemTable:
      return memoryTable(input);
    case Request::GetConfig:
    case Request::SetConfig: {
      auto bytes = test::bytesOf(ConfigHeader{input.byte(), input.byte(), 0});
      bytes.resize(bytes.size() + static_cast<size_t>(bytes[4]));
      return bytes;
    }
    default:
      return {};
  }
}

size_t descriptorsOf(Request request, std::span<const std::byte> payload) {
  switch (request) {
    case Request::SetMemTable:
      return static_cast<size_t>(payload[0]);
    case Request::SetVringKick:
    case Request::SetVringCall:
    case Request::SetVringErr:
      return payload[1] == std::byte{0} ? 1 : 0;
    case Request::SetBackendReqFd:
      return 1;
    default:
      return 0;
  }
}

std::vector<UniqueFd> descriptors(size_t count, Input& input) {
  std::vector<UniqueFd> result;
  for (; count > 0; --count) result.push_back(descriptor(input));
  return result;
}

// Mostly of the kind that the request wants.
std::vector<UniqueFd> descriptorsFor(Request request, std::span<const std::byte> payload,
                                     Input& input) {
  if (request != Request::SetBackendReqFd || input.byte() > 200)
    return descriptors(descriptorsOf(request, payload), input);
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0) std::abort();
  ::close(ends[1]);
  std::vector<UniqueFd> result;
  result.emplace_back(ends[0]);
  return result;
}

std::optional<Message> shapedMessage(MessageReader& reader, const OfferedFeatures& offered,
                                     Input& input) {
  const auto request = static_cast<Request>(input.byte() % 42);
  const auto payload = shapedPayload(request, offered, input);
  const auto bytes = encode(request, kVersion | (input.byte() % 2 ? kNeedReplyFlag : 0),
                            payload.data(), payload.size());
  auto message =
      reader.add({bytes.data(), sizeof(MessageHeader)}, descriptorsFor(request, payload, input));
  if (message) return message;
  return reader.add({bytes.data() + sizeof(MessageHeader), payload.size()}, {});
}

std::optional<Message> rawBytes(MessageReader& reader, Input& input) {
  auto fds = descriptors(input.byte() % 10, input);
  const auto bytes = input.take(std::min<size_t>(1u + input.byte(), reader.missing()));
  if (bytes.empty()) return std::nullopt;
  return reader.add(bytes, std::move(fds));
}

// A state that few inputs reach by themselves: memory with rings filled by the input, and a running
// ring.
void startRing(Session& session, Input& input) {
  constexpr uint64_t kSize = 0x10000;
  const bool packed = input.byte() % 2;
  const auto entries =
      static_cast<uint32_t>(packed ? 1 + input.byte() % 40 : 1 << input.byte() % 6);
  UniqueFd file = test::memoryFile(kSize, "fuzz");
  const uint16_t indexes[] = {input.byte(), input.byte()};
  if (::pwrite(file.get(), &indexes[0], 2, 0x1002) != 2) std::abort();
  if (::pwrite(file.get(), &indexes[1], 2, 0x2002) != 2) std::abort();
  for (uint32_t i = 0; packed && i < entries; ++i) {
    const uint8_t bits = input.byte();
    const virtqueue::PackedDescriptor descriptor{0, 0, bits,
                                                 static_cast<uint16_t>(bits << 14 | (bits & 0x83))};
    if (::pwrite(file.get(), &descriptor, sizeof descriptor,
                 static_cast<off_t>(i * sizeof descriptor)) < 0)
      std::abort();
  }
  const UniqueFd copy(::dup(file.get()));
  session.handle(
      test::with(Request::SetFeatures, feature::kVersion1 | (packed ? feature::kPackedRing : 0)));
  session.handle(test::memoryTable(std::move(file), kSize));
  session.handle(test::state(Request::SetVringNum, 0, entries));
  session.handle(test::addresses(0));
  session.handle(test::with(Request::SetVringKick, 0, test::eventFd()));
  const uint8_t pages = input.byte();
  if (pages < 16 && ::ftruncate(copy.get(), off_t{pages} << 12) < 0) std::abort();
  checkDevice(session.device());
}

void runSession(Input& input) {
  const OfferedFeatures offered = test::offered(2, 1024);
  Session session(offered);
  MessageReader reader;
  try {
    if (input.byte() % 2) startRing(session, input);
    bool whole = true;  // the reader's input so far is whole messages
    while (!input.empty()) {
      const bool shaped = input.byte() < 240 && whole;
      auto message = shaped ? shapedMessage(reader, offered, input) : rawBytes(reader, input);
      whole = message.has_value();
      if (!whole) continue;
      session.handle(std::move(*message));
      session.takeReply();
      session.setLink(input.byte() % 2 == 0);
    }
  } catch (const ProtocolError&) {  // the session has ended
  }
  checkDevice(session.device());
}

}  // namespace
}  // namespace vdpa::vhost_user

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const int before = ::dup(0);
  ::close(before);
  vdpa::vhost_user::Input input({reinterpret_cast<const std::byte*>(data), size});
  vdpa::vhost_user::runSession(input);
  const int after = ::dup(0);  // the lowest free number: unchanged unless a descriptor leaked
  ::close(after);
  if (after != before) std::abort();
  return 0;
}
