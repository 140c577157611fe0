// Written by `npm run types` from the migrations; not to be edited.
export type Json = string | number | boolean | null | { [key: string]: Json | undefined } | Json[]

export type Database = {
  'public': {
    Tables: {
      'order_items': {
        Row: {
          'created_at': string
          'name': string
          'order_id': string
          'product_id': string
          'quantity': number
          'sku': string
          'unit_price_minor': number
          'updated_at': string
        }
        ComputedFields: never
        Insert: {
          'created_at'?: string
          'name': string
          'order_id': string
          'product_id': string
          'quantity': number
          'sku': string
          'unit_price_minor': number
          'updated_at'?: string
        }
        Update: {
          'created_at'?: string
          'name'?: string
          'order_id'?: string
          'product_id'?: string
          'quantity'?: number
          'sku'?: string
          'unit_price_minor'?: number
          'updated_at'?: string
        }
        Relationships: [
          {
            foreignKeyName: 'order_items_order_id_fkey'
            columns: ['order_id']
            isOneToOne: false
            referencedRelation: 'orders'
            referencedColumns: ['id']
          },
          {
            foreignKeyName: 'order_items_product_id_fkey'
            columns: ['product_id']
            isOneToOne: false
            referencedRelation: 'products'
            referencedColumns: ['id']
          },
        ]
      }
      'orders': {
        Row: {
          'cancelled_at': string | null
          'created_at': string
          'currency': string
          'deleted_at': string | null
          'id': string
          'status': string
          'total_minor': number
          'updated_at': string
          'user_id': string | null
        }
        ComputedFields: never
        Insert: {
          'cancelled_at'?: string | null
          'created_at'?: string
          'currency': string
          'deleted_at'?: string | null
          'id'?: string
          'status': string
          'total_minor': number
          'updated_at'?: string
          'user_id'?: string | null
        }
        Update: {
          'cancelled_at'?: string | null
          'created_at'?: string
          'currency'?: string
          'deleted_at'?: string | null
          'id'?: string
          'status'?: string
          'total_minor'?: number
          'updated_at'?: string
          'user_id'?: string | null
        }
        Relationships: []
      }
      'payments': {
        Row: {
          'amount_minor': number
          'created_at': string
          'currency': string
          'id': string
          'order_id': string
          'provider_charge_id': string
          'provider_refund_id': string | null
          'status': string
          'updated_at': string
        }
        ComputedFields: never
        Insert: {
          'amount_minor': number
          'created_at'?: string
          'currency': string
          'id': string
          'order_id': string
          'provider_charge_id': string
          'provider_refund_id'?: string | null
          'status': string
          'updated_at'?: string
        }
        Update: {
          'amount_minor'?: number
          'created_at'?: string
          'currency'?: string
          'id'?: string
          'order_id'?: string
          'provider_charge_id'?: string
          'provider_refund_id'?: string | null
          'status'?: string
          'updated_at'?: string
        }
        Relationships: [
          {
            foreignKeyName: 'payments_order_id_fkey'
            columns: ['order_id']
            isOneToOne: true
            referencedRelation: 'orders'
            referencedColumns: ['id']
          },
        ]
      }
      'products': {
        Row: {
          'created_at': string
          'currency': string
          'deleted_at': string | null
          'id': string
          'name': string
          'price_minor': number
          'sku': string
          'stock': number
          'updated_at': string
        }
        ComputedFields: never
        Insert: {
          'created_at'?: string
          'currency': string
          'deleted_at'?: string | null
          'id'?: string
          'name': string
          'price_minor': number
          'sku': string
          'stock': number
          'updated_at'?: string
        }
        Update: {
          'created_at'?: string
          'currency'?: string
          'deleted_at'?: string | null
          'id'?: string
          'name'?: string
          'price_minor'?: number
          'sku'?: string
          'stock'?: number
          'updated_at'?: string
        }
        Relationships: []
      }
    }
    Views: {
      [_ in never]: never
    }
    Functions: {
      [_ in never]: never
    }
    Enums: {
      [_ in never]: never
    }
    CompositeTypes: {
      [_ in never]: never
    }
  }
}

type DatabaseWithoutInternals = Omit<Database, '__InternalSupabase'>

type DefaultSchema = DatabaseWithoutInternals[Extract<keyof Database, 'public'>]

export type Tables<
  DefaultSchemaTableNameOrOptions extends
    | keyof (DefaultSchema['Tables'] & DefaultSchema['Views'])
    | { schema: keyof DatabaseWithoutInternals },
  TableName extends DefaultSchemaTableNameOrOptions extends {
    schema: keyof DatabaseWithoutInternals
  } ? keyof (
      & DatabaseWithoutInternals[DefaultSchemaTableNameOrOptions['schema']]['Tables']
      & DatabaseWithoutInternals[DefaultSchemaTableNameOrOptions['schema']]['Views']
    )
    : never = never,
> = DefaultSchemaTableNameOrOptions extends { schema: keyof DatabaseWithoutInternals } ? (
    & DatabaseWithoutInternals[DefaultSchemaTableNameOrOptions['schema']]['Tables']
    & DatabaseWithoutInternals[DefaultSchemaTableNameOrOptions['schema']]['Views']
  )[TableName] extends {
    Row: infer R
  } ? R
  : never
  : DefaultSchemaTableNameOrOptions extends keyof (DefaultSchema['Tables'] & DefaultSchema['Views'])
    ? (DefaultSchema['Tables'] & DefaultSchema['Views'])[DefaultSchemaTableNameOrOptions] extends {
      Row: infer R
    } ? R
    : never
  : never

export type TablesInsert<
  DefaultSchemaTableNameOrOptions extends
    | keyof DefaultSchema['Tables']
    | { schema: keyof DatabaseWithoutInternals },
  TableName extends DefaultSchemaTableNameOrOptions extends {
    schema: keyof DatabaseWithoutInternals
  } ? keyof DatabaseWithoutInternals[DefaultSchemaTableNameOrOptions['schema']]['Tables']
    : never = never,
> = DefaultSchemaTableNameOrOptions extends { schema: keyof DatabaseWithoutInternals }
  ? DatabaseWithoutInternals[DefaultSchemaTableNameOrOptions['schema']]['Tables'][TableName] extends {
    Insert: infer I
  } ? I
  : never
  : DefaultSchemaTableNameOrOptions extends keyof DefaultSchema['Tables']
    ? DefaultSchema['Tables'][DefaultSchemaTableNameOrOptions] extends {
      Insert: infer I
    } ? I
    : never
  : never

export type TablesUpdate<
  DefaultSchemaTableNameOrOptions extends
    | keyof DefaultSchema['Tables']
    | { schema: keyof DatabaseWithoutInternals },
  TableName extends DefaultSchemaTableNameOrOptions extends {
    schema: keyof DatabaseWithoutInternals
  } ? keyof DatabaseWithoutInternals[DefaultSchemaTableNameOrOptions['schema']]['Tables']
    : never = never,
> = DefaultSchemaTableNameOrOptions extends { schema: keyof DatabaseWithoutInternals }
  ? DatabaseWithoutInternals[DefaultSchemaTableNameOrOptions['schema']]['Tables'][TableName] extends {
    Update: infer U
  } ? U
  : never
  : DefaultSchemaTableNameOrOptions extends keyof DefaultSchema['Tables']
    ? DefaultSchema['Tables'][DefaultSchemaTableNameOrOptions] extends {
      Update: infer U
    } ? U
    : never
  : never

export type Enums<
  DefaultSchemaEnumNameOrOptions extends
    | keyof DefaultSchema['Enums']
    | { schema: keyof DatabaseWithoutInternals },
  EnumName extends DefaultSchemaEnumNameOrOptions extends {
    schema: keyof DatabaseWithoutInternals
  } ? keyof DatabaseWithoutInternals[DefaultSchemaEnumNameOrOptions['schema']]['Enums']
    : never = never,
> = DefaultSchemaEnumNameOrOptions extends { schema: keyof DatabaseWithoutInternals }
  ? DatabaseWithoutInternals[DefaultSchemaEnumNameOrOptions['schema']]['Enums'][EnumName]
  : DefaultSchemaEnumNameOrOptions extends keyof DefaultSchema['Enums']
    ? DefaultSchema['Enums'][DefaultSchemaEnumNameOrOptions]
  : never

export type CompositeTypes<
  PublicCompositeTypeNameOrOptions extends
    | keyof DefaultSchema['CompositeTypes']
    | { schema: keyof DatabaseWithoutInternals },
  CompositeTypeName extends PublicCompositeTypeNameOrOptions extends {
    schema: keyof DatabaseWithoutInternals
  } ? keyof DatabaseWithoutInternals[PublicCompositeTypeNameOrOptions['schema']]['CompositeTypes']
    : never = never,
> = PublicCompositeTypeNameOrOptions extends { schema: keyof DatabaseWithoutInternals }
  ? DatabaseWithoutInternals[PublicCompositeTypeNameOrOptions['schema']]['CompositeTypes'][CompositeTypeName]
  : PublicCompositeTypeNameOrOptions extends keyof DefaultSchema['CompositeTypes']
    ? DefaultSchema['CompositeTypes'][PublicCompositeTypeNameOrOptions]
  : never

export const Constants = {
  'public': {
    Enums: {},
  },
} as const
