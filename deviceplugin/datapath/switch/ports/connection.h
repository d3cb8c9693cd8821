// One worker's connection to a port: the server's side of vhost-user. The Session checks the
// messages and keeps the state that the pod has set up; the connection makes the pollers' queues
// from it.
//
// No thread waits for the pollers. Some messages take a queue from them or change what it uses:
// they stop or disable a ring, or replace the memory or a kick. Such a message is answered, and the
// next one read, only after every poller has begun a new pass. By then the ring has stopped and its
// position is known, and the queues that continue are made again from the new state.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "common/event_loop.h"
#include "common/unique_fd.h"
#include "deviceplugin/datapath/memory_guard/memory_guard.h"
#include "deviceplugin/datapath/switch/forwarding/epoch.h"
#include "deviceplugin/datapath/switch/forwarding/port.h"
#include "deviceplugin/datapath/switch/forwarding/queues.h"
#include "deviceplugin/datapath/switch/ports/closer.h"
#include "deviceplugin/datapath/switch/ports/guest_memory.h"
#include "deviceplugin/datapath/vhost_user/memory_table.h"
#include "deviceplugin/datapath/vhost_user/message.h"
#include "deviceplugin/datapath/vhost_user/message_socket.h"
#include "deviceplugin/datapath/vhost_user/session.h"
#include "deviceplugin/datapath/vhost_user/vhost_device.h"

namespace vdpa::vswitch {

// For the control thread.
class Connection {
 public:
  // Must outlive the connection.
  struct Shared {
    EventLoop& loop;
    Epoch& epoch;
    MemoryGuard& guard;
    Closer& closer;
  };
  struct Events {
    // A poller shall start (`assign`) or stop (`withdraw`) serving a queue. The connection then
    // calls Epoch::afterPass().
    std::function<void(TransmitQueue&)> assign, withdraw;
    // receive() has changed. The connection then calls Epoch::afterPass().
    std::function<void()> receiveChanged;
    // The pod's packets pass now, or no longer.
    std::function<void(bool)> connected;
    // The other side has left (an empty reason), or did something that ends the connection. The
    // owner must call end(); no more messages are read.
    std::function<void(const std::string& reason)> ended;
  };

  // Serves a connected, non-blocking socket.
  Connection(Shared shared, UniqueFd socket, Port& port, const vhost_user::OfferedFeatures& offered,
             Events events);
  // Unmaps the memory and closes all descriptors. Only after end() and a pass of the pollers,
  // unless there are none. It can take long, and may be done by another thread.
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // Takes all queues from the pollers; receive() is empty from now on. Calls no event but
  // `withdraw`.
  void end();
  // Tells the other side, after end() and a pass: it may then read the rings' positions.
  void hangUp();

  // Sets the status of the link, which the worker reads; changes are sent to it.
  void setLink(bool up) { session_.setLink(up); }
  // The enabled queues on which the pod receives.
  std::vector<ReceiveQueue*> receive() const;
  // Whether the other side has left, even if its last messages have not been read yet.
  bool hungUp() const { return socket_.hungUp(); }
  // The fault of a ring that a poller gave up: "ring 1: entry 7 ...".
  std::string fault() const;

 private:
  // A virtqueue, while it runs.
  struct Running {
    std::unique_ptr<ReceiveQueue> receive;  // one of the two
    std::unique_ptr<TransmitQueue> transmit;
    vhost_user::SharedFd kick, call;  // keep them open
    bool served = false;              // by the pollers
    bool leaving = false;             // until they have passed

    Queue* queue() const;
  };
  using Vring = vhost_user::Vring;

  void onEvents(uint32_t events);
  void serve();
  void handle(vhost_user::Message message);
  void dispose(std::vector<UniqueFd> descriptors);
  void watch();
  void refuse(const std::string& reason);
  void fail(const std::string& reason);
  // Carries out a message in two steps, with a pass of the pollers in between if need be.
  void follow();
  bool takeFromPollers();
  void giveToPollers();
  bool mustLeave(const Running& running, const Vring& ring) const;
  bool setServed(size_t index, bool served);
  void mapMemory();
  void start(size_t index);
  template <typename Q>
  std::unique_ptr<Q> makeQueue(size_t index);
  void passed(std::function<void()> task);
  void noteConnected();
  void answer();

  const Shared shared_;
  Port& port_;
  const Events events_;
  vhost_user::MessageSocket socket_;
  vhost_user::Session session_;
  std::shared_ptr<const GuestMemory> memory_;
  // The table that memory_ was mapped from; the session's differs once a message has replaced it.
  std::shared_ptr<const vhost_user::MemoryTable> mapped_;
  std::vector<Running> running_;  // by virtqueue
  bool waiting_ = false;          // for the pollers; the message is answered then
  bool ended_ = false;
  bool connected_ = false, reportedConnected_ = false;
  std::shared_ptr<char> alive_ = std::make_shared<char>();
  EventLoop::Watch watch_;
};

}  // namespace vdpa::vswitch
