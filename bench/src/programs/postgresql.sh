# Two clients move money; afterwards the sums of all tables are equal. What the server and pgbench say goes
# to standard error.
programs=$(ls -d /usr/lib/postgresql/*/bin | head -1)
as() {
    if [ "$(id -u)" = 0 ]; then setpriv --reuid=postgres --regid=postgres --clear-groups -- "$@"; else "$@"; fi
}
cd postgresql
# A server that was killed leaves its lock, and may not have been reaped yet.
rm -f .s.PGSQL.*
as "$programs/pg_ctl" -D data -s -w -o "-k $PWD -c listen_addresses=''" -l log start
as pgbench -h "$PWD" -n -c 2 -t 1000 postgres >&2
as psql -h "$PWD" -At postgres -c 'select
    (select sum(abalance) from pgbench_accounts) = (select sum(bbalance) from pgbench_branches),
    (select sum(abalance) from pgbench_accounts) = (select sum(tbalance) from pgbench_tellers),
    (select count(*) from pgbench_accounts)'
as "$programs/pg_ctl" -D data -s -m fast stop
status=$?
cat log >&2
exit $status
