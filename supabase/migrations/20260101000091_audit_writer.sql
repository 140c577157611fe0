-- What: who is writing, as far as the request says so soundly; and the gaps: what could not be recorded.
-- Why: a request can say anything of itself, and nothing it says may make a write fail or leave the trail silently short.
-- Who: the triggers of the trail. No API role has a right here.

-- What could not be recorded. No index, no check: nothing here may fail.
create sequence audit.gap_ids;

create table audit.gaps (
    id bigint not null default nextval('audit.gap_ids'),
    occurred_at timestamptz not null default clock_timestamp(),
    transaction_id bigint not null default txid_current(),
    object_identity text,
    operation text,
    sqlstate text,
    message text,
    seen_at timestamptz,
    seen_note text
);

comment on sequence audit.gap_ids is 'Ids of gaps.';
comment on table audit.gaps is
    'One row for each statement whose changes could not be recorded, committed with the statement itself. '
    'Until audit.see_gaps() is called the health check says degraded and each minute an alert is raised.';
comment on column audit.gaps.occurred_at is 'When the statement ran.';
comment on column audit.gaps.transaction_id is 'As in database_changes.';
comment on column audit.gaps.object_identity is 'The table that was written to.';
comment on column audit.gaps.operation is 'INSERT, UPDATE, DELETE, TRUNCATE, DDL or EVENT.';
comment on column audit.gaps.sqlstate is 'Of the error that kept it from being recorded.';
comment on column audit.gaps.message is 'Its message.';
comment on column audit.gaps.seen_at is 'When somebody looked at it.';
comment on column audit.gaps.seen_note is 'What they made of it.';

alter table audit.gaps enable row level security;

create policy "Nobody sees the gaps of the trail through the API"
    on audit.gaps for all to anon, authenticated using (false) with check (false);


create or replace function audit.count_gap(p_object text, p_operation text, p_sqlstate text, p_message text)
returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
    raise warning 'The audit trail could not record % of %: % (%)', p_operation, p_object, p_message, p_sqlstate;
    insert into audit.gaps (object_identity, operation, sqlstate, message)
    values (p_object, p_operation, p_sqlstate, left(p_message, 2000));
exception
    -- The server's log has the line above. Whoever asks for the whole transaction to be tried again is heard.
    when serialization_failure or deadlock_detected then raise;
    when others then null;
end;
$$;

comment on function audit.count_gap(text, text, text, text) is
    'Counts what could not be recorded, in the transaction of the write, and says so in the server''s log. Never fails.';


create or replace function audit.open_gaps()
returns bigint
language sql
stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select count(*) from audit.gaps where seen_at is null
$$;

comment on function audit.open_gaps() is 'How many gaps nobody has looked at yet. The health check asks.';


create or replace function audit.see_gaps(p_note text)
returns bigint
language sql
security invoker
set search_path = pg_catalog, pg_temp
as $$
    with seen as (
        update audit.gaps
        set seen_at = clock_timestamp(), seen_note = p_note
        where seen_at is null
        returning id
    )
    select count(*) from seen
$$;

comment on function audit.see_gaps(text) is
    'Says that somebody has looked at all open gaps, and what they made of them. Ends the alerts. Returns how many there were.';


-- Claims and headers as far as they can be used. Each caller could have sent anything, so nothing is cast unguarded.
create or replace function audit.readable_json(p_setting text)
returns jsonb
language plpgsql
stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_json jsonb;
begin
    -- Not where it is declared: a block does not catch what its declarations raise.
    v_json := nullif(current_setting(p_setting, true), '')::jsonb;
    return case when jsonb_typeof(v_json) = 'object' then v_json end;
exception
    when others then return null;
end;
$$;

comment on function audit.readable_json(text) is 'A setting that holds a JSON object, or null if it holds anything else.';


create or replace function audit.readable_ip(p_ip text)
returns inet
language plpgsql
immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
begin
    -- With a port: 203.0.113.7:51820, or [2001:db8::1]:51820.
    return regexp_replace(btrim(p_ip), '^(?:\[([0-9a-fA-F:.]+)\](?::\d+)?|(\d+\.\d+\.\d+\.\d+):\d+)$', '\1\2')::inet;
exception
    when others then return null;
end;
$$;

comment on function audit.readable_ip(text) is 'An address, with or without a port; null if it is none.';


-- The careful way: claims and headers such that nothing a trigger takes from them can fail.
create or replace function audit.readable_request(out claims jsonb, out headers jsonb, out oddities jsonb)
language plpgsql
stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_unreadable text[] := array[]::text[];
    v_subject text;
begin
    claims := audit.readable_json('request.jwt.claims');
    headers := audit.readable_json('request.headers');
    if claims is null and current_setting('request.jwt.claims', true) <> '' then
        v_unreadable := array_append(v_unreadable, 'claims');
    end if;
    if headers is null and current_setting('request.headers', true) <> '' then
        v_unreadable := array_append(v_unreadable, 'headers');
    end if;

    v_subject := claims ->> 'sub';
    if v_subject !~* '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$' then
        claims := claims - 'sub';
        oddities := jsonb_build_object('actor', left(v_subject, 200));
    end if;
    -- The trigger takes the trusted proxy's entry of the list; a list of one is that entry.
    headers := headers || jsonb_build_object('x-forwarded-for', host(audit.readable_ip(
        audit.forwarded_for(headers ->> 'x-forwarded-for', (select s.trusted_proxy_hops from audit.settings as s))
    )));
    if cardinality(v_unreadable) > 0 then
        oddities := coalesce(oddities, '{}') || jsonb_build_object('unreadable', v_unreadable);
    end if;
end;
$$;

comment on function audit.readable_request(out jsonb, out jsonb, out jsonb) is
    'Claims and headers of the request without what cannot be used, and what was odd about them: a subject that is no '
    'UUID, the names of what was unreadable. Never fails.';


create or replace function audit.forwarded_for(p_list text, p_hops integer)
returns text
language sql
immutable
security invoker
set search_path = pg_catalog, pg_temp
as $$
    select case
        when p_hops = 0 then null
        when p_list not like '%,%' then p_list
        else nullif(split_part(p_list, ',', -p_hops), '')
    end
$$;

comment on function audit.forwarded_for(text, integer) is
    'The entry of x-forwarded-for that the outermost trusted proxy wrote. What is left of it the client may have made up.';


create or replace function audit.writer(
    out actor_id uuid,
    out actor_role text,
    out ip inet,
    out user_agent text,
    out request_id text,
    out function_name text,
    out extra jsonb
)
language plpgsql
stable
security invoker
set search_path = pg_catalog, pg_temp
as $$
declare
    v_claims jsonb;
    v_headers jsonb;
begin
    select r.claims, r.headers, r.oddities into v_claims, v_headers, extra from audit.readable_request() as r;
    actor_id := (v_claims ->> 'sub')::uuid;
    actor_role := coalesce(nullif(current_setting('role', true), 'none'), session_user);
    ip := coalesce((v_headers ->> 'x-forwarded-for')::inet, inet_client_addr());
    user_agent := left(v_headers ->> 'user-agent', 512);
    request_id := left(coalesce(v_headers ->> 'x-request-id', v_headers ->> 'sb-request-id'), 200);
    function_name := left(v_headers ->> 'x-function-name', 100);
end;
$$;

comment on function audit.writer(out uuid, out text, out inet, out text, out text, out text, out jsonb) is
    'Who is writing, as the columns of database_changes say it. Never fails.';
