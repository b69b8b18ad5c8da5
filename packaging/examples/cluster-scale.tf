# Scale the hosts of an ECS cluster by what `berth cluster-scale` publishes:
# 2 adds a host, 0 removes one, 1 does neither.
#
# berth runs every minute by a timer, on any machine (cluster-scale.service and
# cluster-scale.timer), with the permissions in cluster-scale-policy.json. Where
# it does not run, or knows nothing, nothing is added or removed: missing data
# is no reason to act. A third alarm says so to people.

terraform {
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.0"
    }
  }
}

variable "cluster" {
  description = "Name of the ECS cluster."
  type        = string
}

variable "autoscaling_group" {
  description = "Name of the auto scaling group that the cluster's hosts belong to."
  type        = string
}

variable "namespace" {
  description = "Where the status is published: cluster_scale.namespace of berth's configuration."
  type        = string
  default     = "berth"
}

variable "notify" {
  description = "ARNs of SNS topics that are told when there is no status."
  type        = list(string)
  default     = []
}

locals {
  dimensions = {
    ClusterName = var.cluster
  }
}

# Whether hosts are added is decided within two minutes: tasks wait for them.
resource "aws_cloudwatch_metric_alarm" "scale_out" {
  alarm_name          = "${var.cluster}-scale-out"
  alarm_description   = "CPU or memory of the cluster is reserved up to its maximum."
  namespace           = var.namespace
  metric_name         = "ScaleStatus"
  dimensions          = local.dimensions
  statistic           = "Maximum"
  period              = 60
  evaluation_periods  = 2
  comparison_operator = "GreaterThanOrEqualToThreshold"
  threshold           = 2
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_autoscaling_policy.scale_out.arn]
}

# A host is removed only after a quarter of an hour in which nothing else was
# said, by any machine that runs berth cluster-scale.
resource "aws_cloudwatch_metric_alarm" "scale_in" {
  alarm_name          = "${var.cluster}-scale-in"
  alarm_description   = "Neither CPU nor memory of the cluster is reserved beyond its minimum."
  namespace           = var.namespace
  metric_name         = "ScaleStatus"
  dimensions          = local.dimensions
  statistic           = "Maximum"
  period              = 60
  evaluation_periods  = 15
  comparison_operator = "LessThanOrEqualToThreshold"
  threshold           = 0
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_autoscaling_policy.scale_in.arn]
}

# Nobody has published for ten minutes. The threshold is never reached by data.
resource "aws_cloudwatch_metric_alarm" "scale_status_missing" {
  alarm_name          = "${var.cluster}-scale-status-missing"
  alarm_description   = "berth cluster-scale does not run, or cannot reach CloudWatch: the cluster is not scaled."
  namespace           = var.namespace
  metric_name         = "ScaleStatus"
  dimensions          = local.dimensions
  statistic           = "Maximum"
  period              = 60
  evaluation_periods  = 10
  comparison_operator = "LessThanThreshold"
  threshold           = -1
  treat_missing_data  = "breaching"
  alarm_actions       = var.notify
  ok_actions          = var.notify
}

resource "aws_autoscaling_policy" "scale_out" {
  name                      = "${var.cluster}-scale-out"
  autoscaling_group_name    = var.autoscaling_group
  policy_type               = "StepScaling"
  adjustment_type           = "ChangeInCapacity"
  estimated_instance_warmup = 300

  step_adjustment {
    metric_interval_lower_bound = 0
    scaling_adjustment          = 1
  }
}

resource "aws_autoscaling_policy" "scale_in" {
  name                   = "${var.cluster}-scale-in"
  autoscaling_group_name = var.autoscaling_group
  policy_type            = "SimpleScaling"
  adjustment_type        = "ChangeInCapacity"
  scaling_adjustment     = -1
  cooldown               = 900
}
