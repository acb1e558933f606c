# Every value that is still there is the one that was stored, and all are.
memcached -u "$(id -un)" -s "$PWD/memcached" -m 200 -t 2 &
server=$!
until [ -S memcached ]; do kill -0 $server || exit; sleep 0.05; done
/usr/bin/python3 - << 'END'
import socket
s = socket.socket(socket.AF_UNIX)
s.connect('memcached')
f = s.makefile('rb')
value = lambda i: (b'%d,' % (i * 7919)) * (40 + i % 60)
for first in range(0, 100000, 1000):
    for i in range(first, first + 1000):
        v = value(i)
        s.sendall(b'set k%d 0 0 %d noreply\r\n%s\r\n' % (i, len(v), v))
good = 0
for i in range(100000):
    i = i * 7919 % 100000
    s.sendall(b'get k%d\r\n' % i)
    head = f.readline().split()
    if head[0] == b'VALUE':
        good += f.read(int(head[3]) + 2)[:-2] == value(i)
        f.readline()
print(good)
END
# It ends at once: asked to, it would wait for its threads, each of which sleeps for up to a second.
kill -9 $server
wait $server 2> /dev/null
rm -f memcached
