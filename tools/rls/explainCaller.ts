/** Whom an explanation is for: a user of auth.users with the claims the API would set, or a role alone. */
import { LocalError } from '../../local/errors.ts'
import type { Session } from './explainSession.ts'
import type { Caller } from './explanation.ts'

interface User {
  id: string
  role: string | null
  email: string | null
  phone: string | null
  app_metadata: unknown
  user_metadata: unknown
}

const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i

export async function findCaller(
  session: Session,
  named: string,
  extraClaims: Record<string, unknown> = {},
): Promise<Caller> {
  const kind = uuid.test(named) ? 'id' : named.includes('@') ? 'e-mail' : 'role'
  if (kind === 'role') {
    await requireRole(session, named)
    return { named, role: named, claims: { ...extraClaims, role: named } }
  }
  const user = await findUser(session, kind, named)
  const role = user.role || 'authenticated'
  const claims = {
    aud: 'authenticated',
    sub: user.id,
    email: user.email ?? '',
    phone: user.phone ?? '',
    app_metadata: user.app_metadata ?? {},
    user_metadata: user.user_metadata ?? {},
    aal: 'aal1',
    is_anonymous: false,
    ...extraClaims,
    role,
  }
  return { named, role, userId: user.id, claims }
}

async function findUser(session: Session, kind: 'id' | 'e-mail', named: string): Promise<User> {
  const condition = kind === 'id' ? 'id = $1::text::uuid' : 'lower(email) = lower($1::text)'
  const found = await session.attempt(() =>
    session.query<User>(
      `select id::text, role, email, phone, raw_app_meta_data as app_metadata, raw_user_meta_data as user_metadata
       from auth.users
       where ${condition}
       order by created_at`,
      [named],
    )
  )
  if ('error' in found) {
    throw new LocalError(`Cannot look up ${named} in auth.users: ${found.error.message}`, {
      where: '--as',
      fix: 'Connect as a role that may read auth.users (postgres), or name a role: --as authenticated.',
      cause: found.error,
    })
  }
  const [user, ...others] = found.value
  if (user === undefined) {
    throw new LocalError(`There is no user with the ${kind} ${named}`, {
      where: 'auth.users',
      fix: 'Name one that signed up, or a role: --as anon. The demo users are in npm run status.',
    })
  }
  if (others.length > 0) {
    throw new LocalError(`${others.length + 1} users have the e-mail ${named}`, {
      where: 'auth.users',
      fix: `Name one by id: ${[user, ...others].map(({ id }) => id).join(', ')}.`,
    })
  }
  return user
}

async function requireRole(session: Session, named: string): Promise<void> {
  const roles = await session.query<{ rolname: string }>(
    `select rolname from pg_catalog.pg_roles where rolname !~ '^pg_' order by rolname`,
  )
  if (roles.some(({ rolname }) => rolname === named)) return
  throw new LocalError(`There is no role "${named}"`, {
    where: '--as',
    fix: `Name a user by e-mail or id, or one of the roles ${
      roles.map(({ rolname }) => rolname).join(', ')
    }.`,
  })
}
