"""What tests share: waiting, ports, processes and real servers. Nothing here knows chassis."""
