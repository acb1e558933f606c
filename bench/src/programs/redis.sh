# Fills a server, writes while it saves in the background, loads the dump in another: both have the same data.
rm -rf redis && mkdir redis && cd redis
serve() {
    redis-server --port 0 --unixsocket "$PWD/socket" --save '' --dir "$PWD" --enable-debug-command yes \
        --daemonize yes --logfile log > started
    until ask ping 2> log2 | grep -q PONG; do sleep 0.05; done
}
ask() { redis-cli -s "$PWD/socket" "$@"; }
serve
ask debug populate 250000 key 900 > log2
redis-benchmark -s "$PWD/socket" -q -n 50000 -r 250000 -d 100 -t set > log2
ask bgsave > log2
i=0
while ask info persistence | grep -q bgsave_in_progress:1; do
    ask set during$i $i > log2
    i=$((i + 1))
    sleep 0.02
done
ask info persistence | grep -o 'rdb_last_bgsave_status:[a-z]*'
ask flushall > log2
ask debug populate 250000 key 900 > log2
ask debug digest
ask save
ask shutdown nosave
serve
ask dbsize
ask debug digest
ask shutdown nosave
