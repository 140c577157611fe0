/** The policy of the orders, and the same as it is found in many projects. */
import type { Sql } from '../../tests/support/sql.ts'

export interface Policy {
  name: string
  using: string
  /** How often it is asked what makes it read the whole table. */
  wholeTableTimes?: number
}

const policyName = '"Customers see their own orders, admins see all"'

export const ours = 'the policy'
export const byHand = 'by hand, without policies'

export const peers: Policy[] = [
  {
    name: 'wrapped, or is_admin()',
    using: '(user_id = (select auth.uid()) and deleted_at is null) or (select holdfast.is_admin())',
    wholeTableTimes: 3,
  },
  {
    name: 'not wrapped, or is_admin()',
    using: '(user_id = auth.uid() and deleted_at is null) or holdfast.is_admin()',
    wholeTableTimes: 1,
  },
]

/** As the migration has put it into the database. */
export async function readPolicy(sql: Sql): Promise<Policy> {
  const [row] = await sql`
    select pg_get_expr(polqual, polrelid) as using from pg_policy where polrelid = 'public.orders'::regclass`
  return { name: ours, using: row!.using }
}

export async function usePolicy(sql: Sql, { using }: Policy): Promise<void> {
  await sql.unsafe(`alter policy ${policyName} on public.orders using (${using})`)
}
