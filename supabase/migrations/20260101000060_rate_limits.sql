-- What: rate limits, one narrow row for each key that is counted.
-- Why: a limit that holds in all isolates together needs one place that counts, and one clock.
-- Who: the connection's own role calls the functions; admins may in Studio. The API roles have no rights here.

-- Unlogged: a decision waits for no disk. A crash of the server, as a truncate, forgets what was counted, and the
-- counts start anew. No checks: each would be compiled anew for every decision, and only the functions here write.
create unlogged table holdfast.rate_limits (
    key text collate "C" primary key,
    forget_at bigint not null,
    blocked_until bigint,
    refused_at bigint,
    state bigint[]
)
with (
    -- A row is written again and again: there is room for its next version on its page, so no index is written.
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_vacuum_threshold = 1000
);

comment on table holdfast.rate_limits is
    'What was taken from each limit, by key. Moments are microseconds since 1970. Unlogged: a crash starts the counts anew.';
comment on column holdfast.rate_limits.key is 'The limiter''s name, its windows and whom it counts; a digest where that is long.';
comment on column holdfast.rate_limits.forget_at is
    'From then on nothing is counted. With one GCRA window this is all there is to know: its theoretical arrival time.';
comment on column holdfast.rate_limits.blocked_until is 'Every call is refused before; null where there was no block.';
comment on column holdfast.rate_limits.refused_at is 'When a call was refused lately, to the second.';
comment on column holdfast.rate_limits.state is
    'Of other windows, one after the other. gcra: arrival time. fixed: end and tokens taken. sliding: the newest slice, '
    'and the tokens taken in it and in the ten before.';

alter table holdfast.rate_limits enable row level security;

create policy "Nobody sees limits through the API"
    on holdfast.rate_limits
    for all
    to anon, authenticated
    using (false)
    with check (false);

grant select on holdfast.rate_limits to service_role;


create view holdfast.rate_limit_status
with (security_invoker = true)
as
select
    split_part(r.key, '|', 1) as limiter,
    split_part(r.key, '|', 2) as windows,
    substring(r.key from '^[^|]*\|[^|]*\|(.*)$') as counted,
    case
        when r.blocked_until > n.now_us then 'blocked'
        when r.forget_at > n.now_us and r.refused_at > n.now_us - 60000000 then 'refused in the last minute'
        when r.forget_at > n.now_us then 'within its limits'
        else 'forgotten'
    end as standing,
    to_timestamp(r.blocked_until / 1e6) as blocked_until,
    to_timestamp(r.refused_at / 1e6) as refused_at,
    to_timestamp(r.forget_at / 1e6) as forgotten_at,
    r.key
from holdfast.rate_limits r
cross join (select (date_part('epoch', clock_timestamp()) * 1000000)::bigint as now_us) n;

comment on view holdfast.rate_limit_status is
    'Who is limited now: standing = blocked, or refused in the last minute. The key is what reset_rate_limit and '
    'block_rate_limit take.';

grant select on holdfast.rate_limit_status to service_role;


create or replace function holdfast.block_rate_limit(p_key text, p_ms bigint)
returns void
language sql
volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
    insert into holdfast.rate_limits as r (key, forget_at, blocked_until)
    values (p_key, 0, (date_part('epoch', clock_timestamp()) * 1000000)::bigint + p_ms * 1000)
    on conflict (key) do update
    set blocked_until = excluded.blocked_until
$$;

comment on function holdfast.block_rate_limit(text, bigint) is
    'Refuses the key for so many milliseconds from now on, in place of an earlier block; 0 ends it.';


create or replace function holdfast.reset_rate_limit(p_key text)
returns boolean
language sql
volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
    with forgotten as (
        delete from holdfast.rate_limits r
        where r.key = p_key
        returning 1
    )
    select exists (select from forgotten)
$$;

comment on function holdfast.reset_rate_limit(text) is
    'Forgets what was counted for the key, and ends its block. False where nothing was known of it.';


create or replace function holdfast.purge_rate_limits(p_batch bigint default 500000)
returns bigint
language sql
volatile
security invoker
set search_path = pg_catalog, pg_temp
as $$
    with due as (
        select r.key
        from holdfast.rate_limits r
        where greatest(r.forget_at, r.blocked_until) <= date_part('epoch', now()) * 1000000
        limit p_batch
        for update skip locked
    ),
    purged as (
        delete from holdfast.rate_limits r
        using due
        where r.key = due.key
        returning 1
    )
    select count(*) from purged
$$;

comment on function holdfast.purge_rate_limits(bigint) is
    'Deletes keys of which nothing is counted any more and that are not blocked, at most p_batch of them. Returns how many.';


select cron.schedule('holdfast_purge_rate_limits', '* * * * *', 'select holdfast.purge_rate_limits()');
