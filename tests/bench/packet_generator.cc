// A DPDK application on two virtio ports: sends UDP from the first to the second, or both ways, as
// fast as the other side takes it, and counts what arrives. Prints three lines of JSON: the
// frequency of its clock, at the beginning and at the end of the time that counts, and the result.
#include <rte_cycles.h>
#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_ether.h>
#include <rte_ip.h>
#include <rte_mbuf.h>
#include <rte_udp.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <stdexcept>
#include <string>

namespace {

constexpr uint16_t kBurst = 32;
constexpr uint16_t kRing = 256;
constexpr unsigned kFcs = 4;  // on a wire; not in memory

struct [[gnu::packed, gnu::aligned(2)]] Headers {
  rte_ether_hdr ethernet;
  rte_ipv4_hdr ip;
  rte_udp_hdr udp;
};

class Port {
 public:
  // `flows` different UDP source ports are used in turn.
  Port(uint16_t id, rte_mempool* pool, uint16_t length, unsigned flows)
      : id_(id), pool_(pool), length_(length), flows_(flows) {
    rte_eth_conf config{};
    if (rte_eth_dev_configure(id, 1, 1, &config) != 0 ||
        rte_eth_rx_queue_setup(id, 0, kRing, SOCKET_ID_ANY, nullptr, pool) != 0 ||
        rte_eth_tx_queue_setup(id, 0, kRing, SOCKET_ID_ANY, nullptr) != 0 ||
        rte_eth_dev_start(id) != 0)
      throw std::runtime_error("cannot start port " + std::to_string(id));
    const auto other = static_cast<uint8_t>(1 - id);
    headers_.ethernet.src_addr = {{2, 0, 0, 0, 0, static_cast<uint8_t>(id)}};
    headers_.ethernet.dst_addr = {{2, 0, 0, 0, 0, other}};
    headers_.ethernet.ether_type = rte_cpu_to_be_16(RTE_ETHER_TYPE_IPV4);
    const uint16_t ipLength = length - sizeof(rte_ether_hdr);
    headers_.ip.version_ihl = RTE_IPV4_VHL_DEF;
    headers_.ip.total_length = rte_cpu_to_be_16(ipLength);
    headers_.ip.time_to_live = 64;
    headers_.ip.next_proto_id = IPPROTO_UDP;
    headers_.ip.src_addr = rte_cpu_to_be_32(RTE_IPV4(192, 0, 2, id));
    headers_.ip.dst_addr = rte_cpu_to_be_32(RTE_IPV4(192, 0, 2, other));
    headers_.ip.hdr_checksum = rte_ipv4_cksum(&headers_.ip);
    headers_.udp.dst_port = rte_cpu_to_be_16(9);
    headers_.udp.dgram_len = rte_cpu_to_be_16(ipLength - sizeof(rte_ipv4_hdr));
  }

  // Packets that a full ring refuses are offered again the next time. Returns how many it took.
  unsigned send() {
    if (pending_ == 0) {
      if (rte_pktmbuf_alloc_bulk(pool_, frames_.data(), kBurst) != 0) return 0;
      for (rte_mbuf* frame : frames_) {
        frame->data_len = length_;
        frame->pkt_len = length_;
        headers_.udp.src_port = static_cast<uint16_t>(flow_);
        flow_ = flow_ + 1 == flows_ ? 0 : flow_ + 1;
        std::memcpy(rte_pktmbuf_mtod(frame, void*), &headers_, sizeof headers_);
      }
      pending_ = kBurst;
    }
    const uint16_t sent = rte_eth_tx_burst(id_, 0, frames_.data() + (kBurst - pending_), pending_);
    pending_ -= sent;
    return sent;
  }

  uint64_t receive() {
    std::array<rte_mbuf*, kBurst> frames;
    const uint16_t count = rte_eth_rx_burst(id_, 0, frames.data(), kBurst);
    rte_pktmbuf_free_bulk(frames.data(), count);
    return count;
  }

 private:
  uint16_t id_;
  rte_mempool* pool_;
  uint16_t length_;
  unsigned flows_;
  unsigned flow_ = 0;
  Headers headers_{};
  std::array<rte_mbuf*, kBurst> frames_{};
  uint16_t pending_ = 0;
};

struct Result {
  double pps;
  double busy;  // the share of the time in which packets were moved
};

Result run(std::array<Port, 2>& ports, bool both, double seconds) {
  const auto hz = static_cast<double>(rte_get_tsc_hz());
  const uint64_t begin = rte_rdtsc(), end = begin + static_cast<uint64_t>(seconds * hz);
  uint64_t received = 0, busy = 0, now = begin;
  while (now < end) {
    unsigned sent = ports[0].send();
    if (both) sent += ports[1].send();
    const uint64_t came = ports[0].receive() + ports[1].receive();
    received += came;
    const uint64_t then = rte_rdtsc();
    if (sent + came > 0) busy += then - now;
    now = then;
  }
  const auto total = static_cast<double>(now - begin);
  return {static_cast<double>(received) * hz / total, static_cast<double>(busy) / total};
}

}  // namespace

int main(int argc, char** argv) {
  const int taken = rte_eal_init(argc, argv);
  if (taken < 0 || argc - taken != 5 || rte_eth_dev_count_avail() != 2) {
    std::fprintf(stderr, "packet-generator EAL-ARGUMENTS -- SIZE one|both FLOWS SECONDS\n");
    return 2;
  }
  const unsigned size = static_cast<unsigned>(std::atoi(argv[taken + 1]));
  const bool both = std::strcmp(argv[taken + 2], "both") == 0;
  const auto flows = static_cast<unsigned>(std::atoi(argv[taken + 3]));
  const double seconds = std::atof(argv[taken + 4]);
  try {
    rte_mempool* pool = rte_pktmbuf_pool_create("generator", 4096, 256, 0,
                                                RTE_MBUF_DEFAULT_BUF_SIZE, SOCKET_ID_ANY);
    if (!pool) throw std::runtime_error("no memory for packets");
    const auto length = static_cast<uint16_t>(size - kFcs);
    std::array<Port, 2> ports = {Port(0, pool, length, flows), Port(1, pool, length, flows)};
    // Packets don't count until the other side is connected and has learned both addresses.
    const uint64_t timeout = rte_rdtsc() + 20 * rte_get_tsc_hz();
    while (run(ports, true, 0.2).pps < 10000)
      if (rte_rdtsc() > timeout) throw std::runtime_error("no packets arrive");
    run(ports, both, 0.5);
    // The other side's count of its work is read at these two moments.
    const auto mark = [] {
      std::printf("{\"hz\": %lu}\n", rte_get_tsc_hz());
      std::fflush(stdout);
    };
    mark();
    const Result result = run(ports, both, seconds);
    mark();
    std::printf("{\"pps\": %.0f, \"busy\": %.3f}\n", result.pps, result.busy);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "packet-generator: %s\n", error.what());
    return 1;
  }
}
