// What goes into a bundle: no secrets, and an archive that others can read.
#include <catch2/catch.hpp>
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>

#include "common/netlink/message.h"
#include "common/netlink/request.h"
#include "deviceplugin/ctl/bundle/collect.h"
#include "deviceplugin/ctl/bundle/links.h"
#include "deviceplugin/ctl/bundle/redact.h"
#include "deviceplugin/ctl/bundle/tar_gz.h"
#include "deviceplugin/ctl/doctor/node.h"
#include "tests/unit/datapath/temporary_directory.h"

using namespace vdpa;
using namespace vdpa::ctl;

TEST_CASE("secrets are removed, and nothing else") {
  const auto [text, expected] = GENERATE(table<std::string, std::string>({
      {"", ""},
      {R"({"name": "fast", "vlan": 5})", R"({"name": "fast", "vlan": 5})"},
      {R"({"k8s_auth_token": "abc\"d", "mtu": 5})", R"({"k8s_auth_token": "<removed>", "mtu": 5})"},
      {R"({\"password\":\"abc\"})", R"({\"password\":\"<removed>\"})"},
      {"password=hunter2 user=x\n", "password=<removed> user=x\n"},
      {"token: abc\nnext: 1\n", "token: <removed>\nnext: 1\n"},
      {"clientSecret : 'a b' # c", "clientSecret : '<removed>' # c"},
      {"Authorization: Bearer abc.def", "Authorization: Bearer <removed>"},
      {"x eyJhbGciOiJSUzI1NiIsImtpZCI6.eyJpc3MiOi y", "x <removed> y"},
      {"-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----\nz", "<removed>\nz"},
      {"-----BEGIN CERTIFICATE-----\nabc\n", "-----BEGIN CERTIFICATE-----\nabc\n"},
      {"client-key-data: QUJD\n", "client-key-data: <removed>\n"},
      {"secrets:\n  - a\n  - b\n\nnext:\n  - c\n", "secrets:\n  <removed>\n\nnext:\n  - c\n"},
      {"  secrets:\n  - a\n  next: 1\n", "  secrets:\n  <removed>\n  next: 1\n"},
      {"password:\n  hunter2\nnext: 1", "password:\n  <removed>\nnext: 1"},
      {"a:\n  password: |-\n    hunter\n\n    2\n  b: 1\n",
       "a:\n  password: |-\n    <removed>\n  b: 1\n"},
      {"- password: > # folded\n    hunter2\n", "- password: > # folded\n    <removed>\n"},
      {"password: |hunter2", "password: <removed>"},
      {"password: #hunter2\nnext: 1", "password: <removed>\nnext: 1"},
      {"password: two words\nnext: 1", "password: <removed>\nnext: 1"},
      {"password:\nnext: 1", "password:\nnext: 1"},
      {"run --password hunter2 --verbose", "run --password <removed> --verbose"},
      {"run --password 'a b' --token --verbose", "run --password '<removed>' --token --verbose"},
      {R"(["--password", "a b", "x"])", R"(["--password", "<removed>", "x"])"},
      {"- --password\n- hunter2\n- x\n", "- --password\n- <removed>\n- x\n"},
      {R"({"tokens": ["a]", {"b": "}"}], "mtu": 5})", R"({"tokens": <removed>, "mtu": 5})"},
      {R"("{\"tokens\":[\"a]\\\"\",1],\"mtu\":5}")", R"("{\"tokens\":<removed>,\"mtu\":5}")"},
      {R"({\"password\":\"a\\\"b\",\"mtu\":5})", R"({\"password\":\"<removed>\",\"mtu\":5})"},
      {R"({"secret": {"a": "b")", R"({"secret": <removed>)"},
      {"Authorization: Basic dXNlcjpwYXNz\nnext", "Authorization: Basic <removed>\nnext"},
      {"-H 'Authorization: Basic dXNlcjpwYXNz' x", "-H 'Authorization: Basic <removed>' x"},
      {R"({"auths": {"r": {"auth": "abc"}}})", R"({"auths": <removed>})"},
      {R"({"auth": "abc", "wifi_psk": "abc", "author": "abc"})",
       R"({"auth": "<removed>", "wifi_psk": "<removed>", "author": "abc"})"},
      {"get https://user:pa:ss@host/path?x", "get https://<removed>@host/path?x"},
      {"get https://host/a@b", "get https://host/a@b"},
      {"the token is missing\n", "the token is missing\n"},
      {"password:", "password:"},
      {"token=\"unclosed\nnext", "token=\"<removed>\nnext"},
  }));
  CHECK(withoutSecrets(text) == expected);
}

TEST_CASE("an archive is read by tar") {
  TemporaryDirectory directory;
  const std::string file = directory.path() + "/a.tar.gz";
  {
    TarGz archive(::open(file.c_str(), O_WRONLY | O_CREAT, 0600), file);
    archive.add("top/empty", "", 0);
    archive.add("top/" + std::string(96, 'n'), std::string(513, 'x'), 1700000000);
    archive.add("top/block", std::string(512, 'y'), 1700000000);
    CHECK_THROWS_AS(archive.add(std::string(101, 'n'), "", 0), std::length_error);
    archive.finish();
  }
  std::string words[] = {"tar", "-C", directory.path(), "-xzf", file};
  char* arguments[] = {words[0].data(), words[1].data(), words[2].data(),
                       words[3].data(), words[4].data(), nullptr};
  pid_t pid = 0;
  int status = -1;
  REQUIRE(::posix_spawnp(&pid, "tar", nullptr, nullptr, arguments, environ) == 0);
  REQUIRE(::waitpid(pid, &status, 0) == pid);
  REQUIRE(status == 0);
  CHECK(std::filesystem::file_size(directory.path() + "/top/empty") == 0);
  CHECK(std::filesystem::file_size(directory.path() + "/top/" + std::string(96, 'n')) == 513);
  CHECK(readText(directory.path() + "/top/block") == std::string(512, 'y'));
}

TEST_CASE("a disk that is full is an error") {
  TarGz archive(::open("/dev/full", O_WRONLY), "the bundle");
  archive.add("a", std::string(1000, 'x'), 0);
  CHECK_THROWS_WITH(archive.finish(), Catch::Contains("cannot write the bundle"));
}

TEST_CASE("names in a bundle are short, and each has its file") {
  Collection collection;
  const std::string longName(200, 'a');
  collection.add(longName, "1");
  collection.add(longName, "2");
  collection.add("b", "password=x");
  CHECK(collection.files.size() == 3);
  for (const auto& [path, content] : collection.files) CHECK(path.size() <= 82);
  CHECK(collection.files.at("b") == "password=<removed>");
}

TEST_CASE("records are taken as files, and what is no file is left alone") {
  TemporaryDirectory directory;
  const std::string state = directory.path() + "/var/lib/vdpa";
  std::filesystem::create_directories(state + "/owners");
  std::ofstream(state + "/owners/nic-0.json") << R"({"device": "nic-0"})";
  std::filesystem::create_symlink("/etc/shadow", state + "/owners/link");
  REQUIRE(::mkfifo((state + "/owners/fifo").c_str(), 0600) == 0);
  std::ofstream(state + "/large") << std::string(3 << 20, 'x')
                                  << "\ntorn\n-----END PRIVATE KEY-----\n"
                                  << std::string(1 << 19, 'y') << "\nend";
  Collection collection;
  collectRecords(Node(Place::node, directory.path()), {}, collection);
  CHECK(collection.files.at("records/owners/nic-0.json") == R"({"device": "nic-0"})");
  CHECK_FALSE(collection.files.contains("records/owners/link"));
  CHECK_FALSE(collection.files.contains("records/owners/fifo"));
  // Of its last MiB only whole lines, and nothing of a key that has lost its beginning.
  CHECK(collection.files.at("records/large") == std::string(1 << 19, 'y') + "\nend");
}

TEST_CASE("a configuration is read in its container, and nothing else by its links") {
  TemporaryDirectory directory;
  const std::string root = directory.path() + "/proc/7/root";
  std::filesystem::create_directories(root + "/etc/vdpa");
  std::filesystem::create_symlink("/usr/bin/vdpa-device-plugin", directory.path() + "/proc/7/exe");
  const std::string file = root + "/etc/vdpa/config.yaml";
  const auto configuration = [&] {
    Collection collection;
    collectConfigurations(Node(Place::node, directory.path()), {}, collection);
    const auto found = collection.files.find("configuration/config.yaml");
    return found == collection.files.end() ? "none" : found->second;
  };
  SECTION("a link in a ConfigMap's volume") {
    std::filesystem::create_directory(root + "/etc/vdpa/..data");
    std::ofstream(root + "/etc/vdpa/..data/config.yaml") << "resources: []\n";
    std::filesystem::create_symlink("/etc/vdpa/..data/config.yaml", file);
    CHECK(configuration() == "resources: []\n");
  }
  SECTION("a link out of it") {
    std::ofstream(directory.path() + "/outside") << "x";
    std::filesystem::create_symlink("../../../../../outside", file);
    CHECK(configuration() == "none");
    std::filesystem::remove(file);
    std::filesystem::create_symlink(directory.path() + "/outside", file);
    CHECK(configuration() == "none");
  }
  SECTION("a pipe") {
    REQUIRE(::mkfifo(file.c_str(), 0600) == 0);
    CHECK(configuration() == "none");
  }
  SECTION("a large file") {
    std::ofstream(file) << std::string((64 << 10) + 1, 'x');
    CHECK(configuration() == "none");
  }
}

TEST_CASE("logs of the daemons in their namespace") {
  TemporaryDirectory directory;
  const auto write = [&](const std::string& file) {
    const auto path = std::filesystem::path(directory.path() + "/var/log/" + file);
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path) << "x\n";
  };
  write("pods/vdpa-system_vdpa-datapath-abcde_uid/vdpa-datapath/0.log");
  write("pods/vdpa-system_vdpa-datapath-abcde_uid/vdpa-datapath/0.log.20260101-000000.gz");
  write("pods/vdpa-system_vdpa-other-abcde_uid/vdpa-datapath/0.log");
  write("pods/team_vdpa-datapath-abcde_uid/vdpa-datapath/0.log");
  write("vdpa-cni.log");
  write("vdpa-cni.log.1.gz");
  const auto names = [&](const std::string& podNamespace) {
    Collection collection;
    collectLogs(Node(Place::node, directory.path()), podNamespace, collection);
    std::string all;
    for (const auto& [name, content] : collection.files) all += name + "\n";
    return all;
  };
  const std::string log = "logs/vdpa-datapath-abcde_uid/vdpa-datapath/0.log\n";
  CHECK(names("vdpa-system") == "logs/vdpa-cni.log\n" + log);
  CHECK(names("team") == "logs/vdpa-cni.log\n" + log);
  CHECK(names("vdpa") == "logs/vdpa-cni.log\n");
}

TEST_CASE("a bundle has room for so much") {
  Collection collection;
  collection.room = 10;
  collection.add("a", "12345678");
  collection.add("b", "123");
  collection.add("c", "12");
  CHECK(collection.files.size() == 2);
  CHECK(collection.notes == "left out, as the bundle is too large: b\n");
}

TEST_CASE("a process is known by its executable") {
  TemporaryDirectory directory;
  const auto add = [&](const std::string& pid, const std::string& comm, const std::string& exe) {
    const std::string place = directory.path() + "/proc/" + pid;
    std::filesystem::create_directories(place);
    std::ofstream(place + "/comm") << comm << "\n";
    if (!exe.empty()) std::filesystem::create_symlink(exe, place + "/exe");
  };
  add("1", "vdpa-device-plu", "/bin/sleep");
  add("2", "main", "/usr/bin/vdpa-device-plugin");
  add("3", "vdpa-worker", "/usr/bin/vdpa-worker (deleted)");
  add("4", "vdpa-device-plu", "");
  std::string found;
  for (const auto& process : Node(Place::node, directory.path()).processes())
    found += process.pid + " " + process.name + "\n";
  CHECK(found == "2 vdpa-device-plugin\n3 vdpa-worker\n4 vdpa-device-plugin\n");
}

TEST_CASE("the kernel's command line is taken in part") {
  TemporaryDirectory directory;
  std::filesystem::create_directories(directory.path() + "/proc");
  std::ofstream(directory.path() + "/proc/cmdline") << "root=/dev/x intel_iommu=on pass=1 ds=x\n";
  Collection collection;
  collectKernel(Node(Place::node, directory.path()), collection);
  CHECK(collection.files.at("kernel/boot-options") == "intel_iommu=on\n");
}

TEST_CASE("sysfs: network functions, vDPA devices and netdevs") {
  TemporaryDirectory directory;
  const auto write = [&](const std::string& file, const std::string& text) {
    const auto path = std::filesystem::path(directory.path() + "/sys/" + file);
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path) << text;
  };
  write("bus/pci/devices/0000:65:00.2/class", "0x020000\n");
  write("bus/pci/devices/0000:65:00.2/vendor", "0x15b3\n");
  write("bus/pci/devices/0000:00:1f.0/class", "0x060100\n");
  write("class/net/eth0/mtu", "1500\n");
  const auto snapshot = sysfsSnapshot(Node(Place::node, directory.path()));
  CHECK(snapshot["pci"].size() == 1);
  CHECK(snapshot["pci"]["0000:65:00.2"]["vendor"] == "0x15b3");
  CHECK(snapshot["netdevs"]["eth0"]["mtu"] == "1500");
}

TEST_CASE("a link with the settings of its VFs") {
  netlink::Request request(RTM_NEWLINK);
  request.body<ifinfomsg>().ifi_index = 7;
  request.text(IFLA_IFNAME, "ens1f0");
  request.number(IFLA_MTU, uint32_t{9000});
  request.nest(IFLA_LINKINFO, [&] { request.text(IFLA_INFO_KIND, "bond"); });
  request.nest(IFLA_VFINFO_LIST, [&] {
    request.nest(IFLA_VF_INFO, [&] {
      request.structure(IFLA_VF_MAC, ifla_vf_mac{3, {2, 0, 0, 0, 0, 5}});
      request.structure(IFLA_VF_VLAN, ifla_vf_vlan{3, 100, 2});
      request.structure(IFLA_VF_RATE, ifla_vf_rate{3, 10, 20});
    });
  });
  const auto link = linkOf(netlink::Message(request.header()));
  CHECK(link["name"] == "ens1f0");
  CHECK(link["index"] == 7);
  CHECK(link["mtu"] == 9000);
  CHECK(link["kind"] == "bond");
  REQUIRE(link["vfs"].size() == 1);
  CHECK(link["vfs"][0] == nlohmann::json{{"vf", 3},
                                         {"mac", "02:00:00:00:00:05"},
                                         {"vlan", 100},
                                         {"qos", 2},
                                         {"minTxRate", 10},
                                         {"maxTxRate", 20}});
}
