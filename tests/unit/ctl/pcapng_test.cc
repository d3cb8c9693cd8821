// The bytes of capture files, as the specification has them.
#include "deviceplugin/ctl/pcapng.h"

#include <catch2/catch.hpp>

#include <cstddef>
#include <string>
#include <vector>

using vdpa::ctl::Pcapng;

namespace {

// "0a 0d" -> the two bytes
std::string hex(const std::string& text) {
  std::string bytes;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == ' ' || text[i] == '\n') continue;
    bytes += static_cast<char>(std::stoi(text.substr(i++, 2), nullptr, 16));
  }
  return bytes;
}

std::vector<std::byte> bytesOf(const std::string& text) {
  const auto* data = reinterpret_cast<const std::byte*>(text.data());
  return {data, data + text.size()};
}

}  // namespace

TEST_CASE("a section header") {
  Pcapng file;
  file.section("vdpactl 1");
  CHECK(file.bytes == hex("0a0d0d0a 30000000"                     // type, length
                          "4d3c2b1a 0100 0000"                    // byte order, version 1.0
                          "ffffffffffffffff"                      // length of the section: unknown
                          "0400 0900 76647061 63746c20 31000000"  // shb_userappl
                          "0000 0000 30000000"));
}

TEST_CASE("an interface") {
  Pcapng file;
  file.interface("nic-0", "net1", 96);
  CHECK(file.bytes == hex("01000000 34000000"
                          "0100 0000 60000000"           // Ethernet, SnapLen
                          "0200 0500 6e69632d 30000000"  // if_name
                          "0300 0400 6e657431"           // if_description
                          "0900 0100 09000000"           // if_tsresol: 10^-9
                          "0000 0000 34000000"));
}

TEST_CASE("frames") {
  Pcapng file;
  const auto data = bytesOf("abcde");
  SECTION("outbound, cut off") {
    file.frame({0x0102030405060708, false, 60, data});
    CHECK(file.bytes == hex("06000000 34000000 00000000"
                            "04030201 08070605"   // high, low
                            "05000000 3c000000"   // captured, original
                            "61626364 65000000"   // padded
                            "0200 0400 02000000"  // epb_flags: outbound
                            "0000 0000 34000000"));
  }
  SECTION("inbound, with a comment") {
    file.frame({1, true, 5, data, "dropped: vlan"});
    CHECK(file.bytes == hex("06000000 48000000 00000000"
                            "00000000 01000000 05000000 05000000 61626364 65000000"
                            "0200 0400 01000000"
                            "0100 0d00 64726f70 7065643a 20766c61 6e000000"
                            "0000 0000 48000000"));
  }
  SECTION("of no bytes") {
    file.frame({1, true, 0, {}});
    CHECK(file.bytes == hex("06000000 2c000000 00000000"
                            "00000000 01000000 00000000 00000000"
                            "0200 0400 01000000"
                            "0000 0000 2c000000"));
  }
}

TEST_CASE("statistics") {
  Pcapng file;
  file.statistics(0x0000000500000006, 7, 0x0100000000);
  CHECK(file.bytes == hex("05000000 34000000 00000000 05000000 06000000"
                          "0400 0800 0700000000000000"  // isb_ifrecv
                          "0500 0800 0000000001000000"  // isb_ifdrop
                          "0000 0000 34000000"));
}

TEST_CASE("a text longer than an option is cut") {
  Pcapng file;
  file.interface("nic-0", std::string(70000, 'x'), 96);
  CHECK(file.bytes.size() < 66000);
  CHECK(file.bytes.size() % 4 == 0);
}
