#include "deviceplugin/ctl/bundle/tar_gz.h"

#include <fmt/core.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace vdpa::ctl {
namespace {

constexpr size_t kBlock = 512;
constexpr size_t kMaxPath = 100;

// Of the header: offset and size of each field, by pax(1) of POSIX.1-2017.
struct Field {
  size_t offset, size;
};
constexpr Field kName{0, 100}, kMode{100, 8}, kUid{108, 8}, kGid{116, 8}, kSize{124, 12},
    kTime{136, 12}, kChecksum{148, 8}, kType{156, 1}, kMagic{257, 8};

void put(std::string& header, Field field, std::string_view text) {
  text.copy(header.data() + field.offset, std::min(field.size, text.size()));
}

void putOctal(std::string& header, Field field, uint64_t number) {
  put(header, field, fmt::format("{:0{}o}", number, field.size - 1));
}

}  // namespace

TarGz::TarGz(int fd, std::string what) : what_(std::move(what)), file_(::gzdopen(fd, "wb")) {
  if (file_) return;
  ::close(fd);
  throw std::runtime_error(fmt::format("cannot write {}: out of memory", what_));
}

TarGz::~TarGz() {
  if (file_) ::gzclose(file_);
}

void TarGz::write(std::string_view bytes) {
  if (bytes.empty()) return;
  if (::gzwrite(file_, bytes.data(), static_cast<unsigned>(bytes.size())) <= 0)
    throw std::runtime_error(fmt::format("cannot write {}: {}", what_, std::strerror(errno)));
}

void TarGz::add(const std::string& path, std::string_view content, uint64_t time) {
  if (path.size() > kMaxPath) throw std::length_error("a path in an archive is too long: " + path);
  std::string header(kBlock, '\0');
  put(header, kName, path);
  putOctal(header, kMode, 0600);
  putOctal(header, kUid, 0);
  putOctal(header, kGid, 0);
  putOctal(header, kSize, content.size());
  putOctal(header, kTime, time);
  put(header, kType, "0");
  put(header, kMagic, std::string_view("ustar\00000", 8));
  put(header, kChecksum, "        ");
  const unsigned sum =
      std::accumulate(header.begin(), header.end(), 0u,
                      [](unsigned total, char c) { return total + static_cast<unsigned char>(c); });
  put(header, kChecksum, fmt::format("{:06o}", sum));
  header[kChecksum.offset + 6] = '\0';  // and a space after it
  write(header);
  write(content);
  write(std::string((kBlock - content.size() % kBlock) % kBlock, '\0'));
}

void TarGz::finish() {
  write(std::string(2 * kBlock, '\0'));
  if (::gzclose(std::exchange(file_, nullptr)) != Z_OK)
    throw std::runtime_error(fmt::format("cannot write {}: {}", what_, std::strerror(errno)));
}

}  // namespace vdpa::ctl
